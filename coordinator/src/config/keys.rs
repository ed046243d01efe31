//! The table of keys: for each its name, meaning, check and present value.

use std::{net::SocketAddr, path::Path, time::Duration};

use clap::Arg;
use fleet::defaults::VOLUME_RESERVE_PERCENT_MAX;
use rustls::pki_types::ServerName;

use super::{Config, LogFormat, Reflection, Source};
use crate::ticker;

/// Longest name of a key, in characters.
pub(super) const NAME_CHARS_MAX: usize = 40;
/// Most names in the server's certificate that people may ask for.
const SERVER_NAMES_MAX: usize = 32;
/// The most of anything that is counted in a limit.
const COUNT_MAX: u32 = 10_000;
/// The longest time that a limit may be.
const SPAN_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);
/// The most ended runs kept for a project.
const HISTORY_RUNS_MAX: u32 = 10_000;
/// The longest history, in days.
const HISTORY_DAYS_MAX: u32 = 3_650;
const AUDIT_DAYS_MAX: u32 = 3_650;
/// The most daily backups.
const BACKUPS_MAX: u32 = 365;

/// One key of the configuration.
#[derive(Debug)]
pub struct Key {
    /// As in the file, dotted: `limits.agent_slots`.
    pub name: &'static str,
    /// What stands for the value in help texts.
    pub value: &'static str,
    /// What it is, for people.
    pub about: &'static str,
    /// Checks a text and takes it; an error is the rule that it breaks.
    pub set: fn(&mut Config, &str) -> Result<(), String>,
    /// The value as text; empty: not set.
    pub show: fn(&Config) -> String,
}

impl Key {
    /// The flag, without its dashes: `limits-agent-slots`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.replace(['.', '_'], "-")
    }

    /// The environment variable: `MIRROR_COORDINATOR_LIMITS_AGENT_SLOTS`.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("MIRROR_COORDINATOR_{}", self.name.replace('.', "_").to_ascii_uppercase())
    }

    pub(super) fn argument(&self) -> Arg {
        Arg::new(self.name)
            .long(self.flag())
            .env(self.variable())
            .value_name(self.value)
            .help(self.help())
            .help_heading("Keys of the configuration file")
            .hide_env_values(true)
    }

    /// What `--help` says: the meaning, and the default where there is one.
    fn help(&self) -> String {
        let default = (self.show)(&Config::default());
        if default.is_empty() {
            self.about.to_owned()
        } else {
            format!("{} [default: {default}]", self.about)
        }
    }

    pub(super) fn at(&self, source: &Source) -> String {
        match source {
            Source::Line(line) => format!("{} (line {line})", self.name),
            Source::Environment => self.variable(),
            Source::Flag => format!("--{}", self.flag()),
        }
    }
}

/// Every key, in the order of the page for people.
pub const KEYS: &[Key] = &[
    Key {
        name: "data_dir",
        value: "DIR",
        about: "Folder of all that the coordinator keeps: store, CA, certificates, backups",
        set: |config, text| {
            config.data_dir = (!text.is_empty()).then(|| text.into()).ok_or("wanted is a folder")?;
            Ok(())
        },
        show: |config| config.data_dir.display().to_string(),
    },
    Key {
        name: "trust_domain",
        value: "NAME",
        about: "The fleet's name in every identity, as in spiffe://NAME/agent/ftp1; must be the CA's. Not set: the CA's",
        set: |config, text| {
            config.trust_domain = Some(
                text.parse()
                    .map_err(|_| "1 to 255 small letters, digits and . _ -, as in mirror.example.org")?,
            );
            Ok(())
        },
        show: |config| config.trust_domain.as_ref().map_or_else(String::new, ToString::to_string),
    },
    Key {
        name: "server_names",
        value: "NAME,IP",
        about: "Names and addresses in the server's certificate, under which agents and users dial. Not set: the host's name",
        set: |config, text| {
            config.server_names = list(text)?;
            Ok(())
        },
        show: |config| config.server_names.join(","),
    },
    Key {
        name: "grpc_listen",
        value: "ADDRESS:PORT",
        about: "Where agents and users dial (gRPC over mutual TLS)",
        set: |config, text| {
            config.grpc_listen = address(text)?;
            Ok(())
        },
        show: |config| config.grpc_listen.to_string(),
    },
    Key {
        name: "http_listen",
        value: "ADDRESS:PORT",
        about: "Where probes ask /healthz, /readyz and /version (plaintext)",
        set: |config, text| {
            config.http_listen = address(text)?;
            Ok(())
        },
        show: |config| config.http_listen.to_string(),
    },
    Key {
        name: "https_listen",
        value: "ADDRESS:PORT|off",
        about: "Where release scripts and webhooks push (HTTPS; docs/pushes.md). off: nowhere",
        set: |config, text| {
            config.https_listen = if text == "off" { None } else { Some(address(text)?) };
            Ok(())
        },
        show: |config| config.https_listen.map_or_else(|| "off".to_owned(), |address| address.to_string()),
    },
    Key {
        name: "https_certificate",
        value: "FILE",
        about: "PEM file of the HTTPS port's certificate and those that lead from it to a known CA, in this order; read again on reload and each hour. Not set: the server's own, of the fleet's CA",
        set: |config, text| {
            config.https_certificate = (!text.is_empty()).then(|| text.into());
            Ok(())
        },
        show: |config| shown_path(config.https_certificate.as_deref()),
    },
    Key {
        name: "https_key",
        value: "FILE",
        about: "PEM file of that certificate's private key, for the coordinator's account alone; may be the same file",
        set: |config, text| {
            config.https_key = (!text.is_empty()).then(|| text.into());
            Ok(())
        },
        show: |config| shown_path(config.https_key.as_deref()),
    },
    Key {
        name: "admin_socket",
        value: "FILE|off",
        about: "Unix socket that root and the coordinator's own account get back in by, as admin, when certificates and passwords are lost (mirrorctl --socket); counts from data_dir. off: none",
        set: |config, text| {
            config.admin_socket = match text {
                "" => return Err("wanted is a file, or off".to_owned()),
                "off" => None,
                file => Some(file.into()),
            };
            Ok(())
        },
        show: |config| {
            config.admin_socket.as_ref().map_or_else(|| "off".to_owned(), |file| file.display().to_string())
        },
    },
    Key {
        name: "reflection",
        value: "open|users|off",
        about: "Who may ask for the server's own description (gRPC reflection): anybody, users of any role, nobody",
        set: |config, text| {
            config.reflection = match text {
                "open" => Reflection::Open,
                "users" => Reflection::Users,
                "off" => Reflection::Off,
                _ => return Err("must be open, users or off".to_owned()),
            };
            Ok(())
        },
        show: |config| {
            let text = match config.reflection {
                Reflection::Open => "open",
                Reflection::Users => "users",
                Reflection::Off => "off",
            };
            text.to_owned()
        },
    },
    Key {
        name: "log.format",
        value: "text|json",
        about: "How log lines on stderr look",
        set: |config, text| {
            config.log_format = match text {
                "text" => LogFormat::Text,
                "json" => LogFormat::Json,
                _ => return Err("must be text or json".to_owned()),
            };
            Ok(())
        },
        show: |config| {
            if config.log_format == LogFormat::Text { "text".to_owned() } else { "json".to_owned() }
        },
    },
    Key {
        name: "log.filter",
        value: "FILTER",
        about: "What is logged, in the manner of RUST_LOG: a level, or target=level pairs with commas",
        set: |config, text| {
            crate::telemetry::check_filter(text)?;
            text.clone_into(&mut config.log_filter);
            Ok(())
        },
        show: |config| config.log_filter.clone(),
    },
    Key {
        name: "otlp.endpoint",
        value: "URL",
        about: "Where traces are sent, OTLP over gRPC, as in http://127.0.0.1:4317. Not set: nowhere",
        set: |config, text| {
            config.otlp_endpoint = endpoint(text)?;
            Ok(())
        },
        show: |config| config.otlp_endpoint.clone().unwrap_or_default(),
    },
    Key {
        name: "limits.agent_slots",
        value: "N",
        about: "Attempts on one agent at once; the agent's own file may say less",
        set: |config, text| counted(text, 1, COUNT_MAX, &mut config.limits.agent_slots),
        show: |config| config.limits.agent_slots.to_string(),
    },
    Key {
        name: "limits.volume_slots",
        value: "N",
        about: "Attempts on one volume (a root of an agent) at once",
        set: |config, text| counted(text, 1, COUNT_MAX, &mut config.limits.volume_slots),
        show: |config| config.limits.volume_slots.to_string(),
    },
    Key {
        name: "limits.first_syncs",
        value: "N",
        about: "First copies on one volume at once",
        set: |config, text| counted(text, 1, COUNT_MAX, &mut config.limits.first_syncs),
        show: |config| config.limits.first_syncs.to_string(),
    },
    Key {
        name: "limits.upstream_slots",
        value: "N",
        about: "Connections to one upstream host over the whole fleet",
        set: |config, text| counted(text, 1, COUNT_MAX, &mut config.limits.upstream_slots),
        show: |config| config.limits.upstream_slots.to_string(),
    },
    Key {
        name: "limits.upstream_spacing",
        value: "TIME",
        about: "Pause between two starts at one upstream host",
        set: |config, text| timed(text, Duration::ZERO, &mut config.limits.upstream_spacing),
        show: |config| span(config.limits.upstream_spacing),
    },
    Key {
        name: "limits.busy_pause",
        value: "TIME",
        about: "First pause after an upstream answered that it has as many connections as it takes; later ones grow to 30m",
        set: |config, text| timed(text, Duration::from_secs(1), &mut config.limits.busy_pause),
        show: |config| span(config.limits.busy_pause),
    },
    Key {
        name: "limits.origin_uplink",
        value: "N",
        about: "Replicas that pull from one origin at once",
        set: |config, text| counted(text, 1, COUNT_MAX, &mut config.limits.origin_uplink),
        show: |config| config.limits.origin_uplink.to_string(),
    },
    Key {
        name: "limits.volume_reserve_percent",
        value: "N",
        about: "Percent of a volume's bytes, and of its inodes, that stay free: below, nothing that may grow starts there",
        set: |config, text| {
            counted(text, 0, VOLUME_RESERVE_PERCENT_MAX, &mut config.limits.volume_reserve_percent)
        },
        show: |config| config.limits.volume_reserve_percent.to_string(),
    },
    Key {
        name: "limits.volume_reserve_bytes",
        value: "SIZE",
        about: "Bytes of a volume that stay free where that is more, as in 20GiB; never more than a 20th of the volume",
        set: |config, text| sized(text, &mut config.limits.volume_reserve_bytes),
        show: |config| size(config.limits.volume_reserve_bytes),
    },
    Key {
        name: "limits.lost_after",
        value: "TIME",
        about: "An agent away for longer no longer holds up runs and slots",
        set: |config, text| timed(text, Duration::from_secs(1), &mut config.limits.lost_after),
        show: |config| span(config.limits.lost_after),
    },
    Key {
        name: "limits.offer_timeout",
        value: "TIME",
        about: "An offer unanswered for longer costs the agent its session; its next hello tells what happened",
        set: |config, text| timed(text, Duration::from_secs(1), &mut config.limits.offer_timeout),
        show: |config| span(config.limits.offer_timeout),
    },
    Key {
        name: "limits.catch_up_spread",
        value: "TIME",
        about: "After an outage, missed fires start at random within this",
        set: |config, text| timed(text, Duration::ZERO, &mut config.limits.catch_up_spread),
        show: |config| span(config.limits.catch_up_spread),
    },
    Key {
        name: "history.runs",
        value: "N",
        about: "Ended runs kept for each project",
        set: |config, text| counted(text, 1, HISTORY_RUNS_MAX, &mut config.history_runs),
        show: |config| config.history_runs.to_string(),
    },
    Key {
        name: "history.days",
        value: "N",
        about: "Days for which ended runs are kept",
        set: |config, text| counted(text, 1, HISTORY_DAYS_MAX, &mut config.history_days),
        show: |config| config.history_days.to_string(),
    },
    Key {
        name: "audit.days",
        value: "N",
        about: "Days for which the audit log is kept",
        set: |config, text| counted(text, 1, AUDIT_DAYS_MAX, &mut config.audit_days),
        show: |config| config.audit_days.to_string(),
    },
    Key {
        name: "backup.keep",
        value: "N",
        about: "Daily backups kept in the folder `backups` of data_dir; 0: none are made",
        set: |config, text| counted(text, 0, BACKUPS_MAX, &mut config.backups),
        show: |config| config.backups.to_string(),
    },
    Key {
        name: "backup.keep_weekly",
        value: "N",
        about: "Weeks before those days of which one backup is kept",
        set: |config, text| counted(text, 0, BACKUPS_MAX, &mut config.weekly_backups),
        show: |config| config.weekly_backups.to_string(),
    },
    Key {
        name: "housekeeping.watchdog",
        value: "CRON",
        about: "When to look whether a fire is overdue (six fields, seconds first, UTC)",
        set: |config, text| cron(text, &mut config.housekeeping.watchdog),
        show: |config| config.housekeeping.watchdog.clone(),
    },
    Key {
        name: "housekeeping.sweep",
        value: "CRON",
        about: "When to forget expired answers and join tokens",
        set: |config, text| cron(text, &mut config.housekeeping.sweep),
        show: |config| config.housekeeping.sweep.clone(),
    },
    Key {
        name: "housekeeping.backup",
        value: "CRON",
        about: "When to back the store up",
        set: |config, text| cron(text, &mut config.housekeeping.backup),
        show: |config| config.housekeeping.backup.clone(),
    },
    Key {
        name: "housekeeping.prune",
        value: "CRON",
        about: "When to remove what is beyond history.runs, history.days and audit.days",
        set: |config, text| cron(text, &mut config.housekeeping.prune),
        show: |config| config.housekeeping.prune.clone(),
    },
    Key {
        name: "housekeeping.certificate",
        value: "CRON",
        about: "When to look whether the server's own certificate is due for renewal (a third of its life)",
        set: |config, text| cron(text, &mut config.housekeeping.certificate),
        show: |config| config.housekeeping.certificate.clone(),
    },
];

fn shown_path(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.display().to_string())
}

/// `ADDRESS:PORT`; `:PORT` means every address.
fn address(text: &str) -> Result<SocketAddr, String> {
    let whole = if text.starts_with(':') { format!("0.0.0.0{text}") } else { text.to_owned() };
    whole.parse().map_err(|_| "wanted is ADDRESS:PORT, as in 127.0.0.1:7443, [::1]:7443 or :7443".to_owned())
}

fn list(text: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> =
        text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.len() > SERVER_NAMES_MAX {
        return Err(format!("at most {SERVER_NAMES_MAX} names"));
    }
    match names.iter().find(|name| ServerName::try_from(name.as_str()).is_err()) {
        Some(bad) => Err(format!("{bad:?} is neither a DNS name nor an IP address")),
        None => Ok(names),
    }
}

fn endpoint(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let uri: http::Uri =
        text.parse().map_err(|_| "wanted is a URL such as http://127.0.0.1:4317".to_owned())?;
    if uri.scheme_str() != Some("http") || uri.host().is_none() {
        return Err("wanted is http://HOST:PORT; a collector over TLS needs a local relay".to_owned());
    }
    Ok(Some(text.to_owned()))
}

fn counted(text: &str, least: u32, most: u32, value: &mut u32) -> Result<(), String> {
    let number = text.replace('_', "").parse().ok().filter(|number| (least..=most).contains(number));
    *value = number.ok_or_else(|| format!("must be a number from {least} to {most}"))?;
    Ok(())
}

fn timed(text: &str, least: Duration, value: &mut Duration) -> Result<(), String> {
    let parsed = if text == "0" { Ok(Duration::ZERO) } else { humantime::parse_duration(text) };
    let parsed = parsed.map_err(|_| "wanted is a time such as 10s, 5m, 6h".to_owned())?;
    if !(least..=SPAN_MAX).contains(&parsed) {
        return Err(format!("must be {} to {}", span(least), span(SPAN_MAX)));
    }
    *value = parsed;
    Ok(())
}

fn span(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

/// Units of sizes, the largest first.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];

/// `20GiB`, `500MiB`, or bytes.
fn sized(text: &str, value: &mut u64) -> Result<(), String> {
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'_').count();
    let (number, unit) = text.split_at(digits);
    let unit = UNITS.iter().find(|(name, _)| *name == unit.trim()).map(|(_, bytes)| *bytes);
    let number = number.replace('_', "").parse::<u64>().ok();
    let bytes = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    *value = bytes.ok_or("wanted is a size such as 20GiB, 500MiB or 0")?;
    Ok(())
}

fn size(bytes: u64) -> String {
    let fits = UNITS.iter().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    fits.map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

fn cron(text: &str, value: &mut String) -> Result<(), String> {
    ticker::check_cron(text)?;
    text.clone_into(value);
    Ok(())
}
