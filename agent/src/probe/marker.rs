//! The marker at every upstream of a project, as `mirrorctl project check` tells it: the preferred one and the others, all
//! asked at once, each under this host's own rules. Reads no tree.

use fleet::marker::{self, MARKER_BYTES_MAX, Marker, MarkerKind};
use fleet::time::Wall;
use fleet::words::instant;
use mirror_proto::convert::{UPSTREAMS_MAX, marker_from_wire, wall_from_wire};
use mirror_proto::v1;
use mirror_proto::v1::finding::{Kind, Severity};
use rsync::exit::{ExitCode, diagnose};
use rsync::{Options, Plan, Purpose, RsyncUri, listing};

use super::program::{self, Wanted};
use super::upstream::{LIST_TIME_MAX, secret_of};
use super::{Look, finding, read_source};
use crate::clock;
use crate::guard::upstream::resolve;

/// What is to be said of the marker; nothing where none is declared.
pub(super) async fn look(look: &Look<'_>) -> Vec<v1::Finding> {
    let probe = look.probe;
    let Some(marker) = &probe.marker else { return Vec::new() };
    let marker = match marker_from_wire("marker", marker) {
        Ok(marker) => marker,
        Err(faults) => {
            let faults: Vec<String> = faults.into_iter().map(|fault| fault.description).collect();
            return vec![finding(Kind::Marker, Severity::Fault, look.say(&faults.join("; ")))];
        }
    };
    let preferred = v1::ProbedUpstream {
        source_uri: probe.source_uri.clone(),
        user: probe.user.clone(),
        secrets: probe.secrets.clone(),
        offline: probe.offline,
    };
    let asked = std::iter::once(&preferred).chain(probe.others.iter().take(UPSTREAMS_MAX - 1));
    let asked = asked.filter(|one| !one.offline && !one.source_uri.is_empty());
    let looks: Vec<_> = asked.map(|one| look_at(look, &marker, one)).collect();
    futures_util::future::join_all(looks).await
}

async fn look_at(look: &Look<'_>, marker: &Marker, upstream: &v1::ProbedUpstream) -> v1::Finding {
    let uri = rsync::text::printable(upstream.source_uri.as_bytes(), 300);
    let served = look.probe.marker_not_before.as_ref();
    let served = served.and_then(|time| wall_from_wire("marker_not_before", time).ok());
    let (severity, text) = match read(look, marker, upstream).await {
        Ok(time) => match served.filter(|served| time < *served) {
            Some(served) => {
                let text = format!(
                    "reads {} at {uri}: {}, older than what is served ({}); nothing is pulled from there",
                    marker.path,
                    instant(time),
                    instant(served)
                );
                (Severity::Warning, text)
            }
            None => (Severity::Ok, format!("reads {} at {uri}: {}", marker.path, instant(time))),
        },
        Err(why) => (Severity::Warning, format!("cannot tell how new {uri} is by {}: {why}", marker.path)),
    };
    finding(Kind::Marker, severity, look.say(&text))
}

async fn read(look: &Look<'_>, marker: &Marker, upstream: &v1::ProbedUpstream) -> Result<Wall, String> {
    let source = read_source(&upstream.source_uri, &upstream.user)?;
    let addresses = resolve(source.host(), source.port())
        .await
        .map_err(|error| format!("no address of {} is found: {error}", source.host()))?;
    let live = look.live;
    live.config.upstreams.judge(source.host(), &addresses).map_err(|refusal| refusal.to_string())?;
    let slug = program::new_slug();
    let by_time = marker.kind == MarkerKind::Mtime;
    let purpose = if by_time {
        Purpose::List(vec![marker.path.clone()])
    } else {
        Purpose::Fetch { name: marker.path.clone(), max_bytes: MARKER_BYTES_MAX }
    };
    let secret = secret_of(upstream.secrets.as_ref())?;
    let plan = plan(look, source.clone(), purpose);
    let plan = if by_time { plan } else { Plan { destination: program::fetched_dir(live, &slug), ..plan } };
    let plan = Plan { password: secret.is_some(), ..plan };
    let command = plan
        .build()
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))?;
    let name = marker.path.rsplit('/').next().map(str::to_owned);
    let wanted = Wanted {
        command,
        port: source.port(),
        read_paths: Vec::new(),
        secret,
        time_max: LIST_TIME_MAX,
        slug,
        fetches: name.filter(|_| !by_time),
    };
    let mut changed = None;
    let ran = program::run(live, wanted, |line| {
        let entry = listing::parse_line(line).filter(|entry| entry.name == marker.path.as_bytes());
        let plain = entry.filter(|entry| entry.kind == rsync::progress::Kind::File);
        changed = plain.and_then(|entry| entry.changed).or(changed);
    })
    .await?;
    if !matches!(ran.end, ExitCode::Code(0 | 23 | 24)) {
        return Err(diagnose(ran.end, &ran.stderr, &ran.stats).cause);
    }
    let now = Wall::from(clock::now());
    let changed = changed.map(Wall::of_seconds);
    marker::of_file(marker.kind, changed, ran.fetched.as_deref(), now).map_err(|fault| fault.to_string())
}

/// A fetch and a listing take none of the options.
fn plan(look: &Look<'_>, source: RsyncUri, purpose: Purpose) -> Plan {
    let plan = look.plan(source, Options::default(), purpose);
    Plan { delete: None, acls_and_xattrs: true, ..plan }
}
