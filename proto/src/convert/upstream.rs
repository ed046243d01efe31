//! Upstream hosts: how they stand, the limits people set for them, and one upstream in the place of another. Does not
//! know which projects there are.

use std::time::Duration;

use fleet::{
    Engine, defaults,
    engine::{Breaker, UpstreamView},
    refusal::Violation,
    time::Now,
    upstream::UpstreamRecord,
};
use rsync::uri::RsyncUri;

use super::{
    enums::wire,
    fault,
    names::{etag_of, upstream_name},
    time::{Seconds, duration_to_wire, wall_to_wire},
};
use crate::{
    redact::without_user_info,
    v1::{self, upstream_host},
};

const SPACING: Seconds = Seconds { min: 0, max: defaults::UPSTREAM_SPACING_MAX.as_secs() };
const SCHEME: &str = "rsync://";

/// The wire's form of an upstream host.
#[must_use]
pub fn upstream_to_wire(view: &UpstreamView<'_>, engine: &Engine, now: Now) -> v1::UpstreamHost {
    let UpstreamView { host, record, in_use, waiting, projects, state } = *view;
    let open = state.and_then(|state| state.breaker.as_ref()).filter(|breaker| is_open(breaker, now));
    let breaker = match open {
        None => upstream_host::Breaker::Closed,
        Some(breaker) if breaker.probe.is_some() => upstream_host::Breaker::Probing,
        Some(_) => upstream_host::Breaker::Open,
    };
    let until = open.map(|breaker| now.wall.plus(breaker.until.since(now.mono)));
    let failure = state.and_then(|state| state.last_failure.as_ref());
    v1::UpstreamHost {
        name: upstream_name(host),
        slots: record.and_then(|record| record.slots).unwrap_or(0),
        spacing: record.and_then(|record| record.spacing).map(duration_to_wire),
        slots_in_force: engine.upstream_slots(host),
        spacing_in_force: Some(duration_to_wire(engine.upstream_spacing(host))),
        in_use,
        waiting,
        projects,
        breaker: breaker.into(),
        breaker_until_time: until.map(wall_to_wire),
        failures: state.map_or(0, |state| state.failures),
        last_failure_time: failure.map(|failure| wall_to_wire(failure.time)),
        last_failure_class: failure.map_or(0, |failure| wire::exit_class::number(failure.class)),
        last_failure_cause: failure.map(|failure| failure.cause.clone()).unwrap_or_default(),
        etag: etag_of(record.map_or(0, |record| record.revision)),
        create_time: record.map(|record| wall_to_wire(record.create_time)),
        update_time: record.map(|record| wall_to_wire(record.update_time)),
    }
}

/// A probe that has had time enough to fail holds nobody up any more.
fn is_open(breaker: &Breaker, now: Now) -> bool {
    breaker.probe.is_none() || breaker.until > now.mono
}

/// The limits of one host as they will be: what is set, with the masked fields of `update`.
///
/// # Errors
/// An empty mask, paths that name no limit, limits out of bounds.
pub fn upstream_limits_from_wire(
    current: Option<&UpstreamRecord>,
    update: &v1::UpstreamHost,
    paths: &[String],
) -> Result<(Option<u32>, Option<Duration>), Vec<Violation>> {
    let mut slots = current.and_then(|current| current.slots);
    let mut spacing = current.and_then(|current| current.spacing);
    let mut faults = Vec::new();
    if paths.is_empty() {
        faults.push(Violation::new("update_mask", "is required: slots, spacing or both"));
    }
    for path in paths {
        match path.as_str() {
            "slots" => slots = (update.slots > 0).then_some(update.slots),
            "spacing" => match SPACING.read("upstream.spacing", update.spacing.as_ref()) {
                Ok(seconds) => spacing = seconds.map(Duration::from_secs),
                Err(bad) => faults.push(bad),
            },
            other => faults.push(fault("update_mask", other, "only slots and spacing can be set")),
        }
    }
    if slots.is_some_and(|slots| slots > defaults::UPSTREAM_SLOTS_MAX) {
        let rule = format!("must be 1 to {}, or 0 for the default", defaults::UPSTREAM_SLOTS_MAX);
        faults.push(fault("upstream.slots", &update.slots.to_string(), rule));
    }
    if faults.is_empty() { Ok((slots, spacing)) } else { Err(faults) }
}

/// The beginning of URIs that a replacement speaks of, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriPrefix(String);

/// Reads `host`, `host:port` or the beginning of a URI.
///
/// # Errors
/// No host, a user or a password in it, another scheme.
pub fn parse_uri_prefix(field: &str, text: &str) -> Result<UriPrefix, Violation> {
    let whole = if text.contains("://") { text.to_owned() } else { format!("{SCHEME}{text}") };
    let shown = without_user_info(text);
    let uri = RsyncUri::parse(&whole).map_err(|bad| fault(field, &shown, bad))?;
    if uri.user().is_some() || uri.password().is_some() {
        return Err(fault(field, &shown, "leave user and password out; they are the projects' own"));
    }
    Ok(UriPrefix(uri.to_string().trim_end_matches('/').to_owned()))
}

impl UriPrefix {
    /// Whether both name the same host and port: only then a password may be taken along.
    #[must_use]
    pub fn is_same_server(&self, other: &Self) -> bool {
        let server =
            |prefix: &Self| RsyncUri::parse(&prefix.0).ok().map(|uri| (uri.host().clone(), uri.port()));
        server(self) == server(other)
    }

    /// The URI with this beginning in place of `from`; `None`: it does not begin so, up to a whole part of the path.
    #[must_use]
    pub fn in_place_of(&self, from: &Self, uri: &str) -> Option<String> {
        let rest = uri.strip_prefix(from.0.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{}{rest}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> UriPrefix {
        parse_uri_prefix("from", text).expect("a prefix")
    }

    #[test]
    fn prefixes_fit_whole_parts_of_the_path() {
        let to = prefix("rsync://new.example.org:8730/pub/");
        let put = |from: &str, uri: &str| to.in_place_of(&prefix(from), uri);
        let uri = "rsync://old.example.org/debian/pool/";
        assert_eq!(
            put("old.example.org", uri).as_deref(),
            Some("rsync://new.example.org:8730/pub/debian/pool/")
        );
        assert_eq!(put("OLD.example.org:873", uri), put("old.example.org", uri));
        assert_eq!(
            put("rsync://old.example.org/debian", uri).as_deref(),
            Some("rsync://new.example.org:8730/pub/pool/")
        );
        for other in ["old.example.org:8730", "old.example", "rsync://old.example.org/deb", "new.example.org"]
        {
            assert_eq!(put(other, uri), None, "{other}");
        }
        assert_eq!(
            put("[2001:db8::1]", "rsync://[2001:db8::1]/m/").as_deref(),
            Some("rsync://new.example.org:8730/pub/m/")
        );
    }

    #[test]
    fn prefixes_name_nobody() {
        for bad in ["", "ftp://h/m", "u@h", "rsync://u:secret@h/m", "h:0", "rsync://h/m/../x"] {
            let told = parse_uri_prefix("from", bad).expect_err(bad);
            assert!(!told.description.contains("secret"), "{told:?}");
        }
    }

    #[test]
    fn masked_limits_change_and_others_stay() {
        let update = v1::UpstreamHost { slots: 7, ..v1::UpstreamHost::default() };
        let record = UpstreamRecord {
            host: "h".to_owned(),
            slots: None,
            spacing: Some(Duration::from_secs(30)),
            revision: 1,
            create_time: fleet::time::Wall(0),
            update_time: fleet::time::Wall(0),
        };
        let read = |paths: &[&str], update: &v1::UpstreamHost| {
            let paths: Vec<String> = paths.iter().map(|path| (*path).to_owned()).collect();
            upstream_limits_from_wire(Some(&record), update, &paths)
        };
        assert_eq!(read(&["slots"], &update), Ok((Some(7), record.spacing)));
        assert_eq!(read(&["slots", "spacing"], &update), Ok((Some(7), None)));
        let bad = v1::UpstreamHost {
            slots: 101,
            spacing: Some(duration_to_wire(Duration::from_secs(3_601))),
            ..v1::UpstreamHost::default()
        };
        let faults = read(&["slots", "spacing", "name"], &bad).expect_err("faulty");
        let fields: Vec<&str> = faults.iter().map(|fault| fault.field.as_str()).collect();
        assert_eq!(fields, ["upstream.spacing", "update_mask", "upstream.slots"]);
        assert!(read(&[], &update).is_err());
    }
}
