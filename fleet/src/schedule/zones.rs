//! Names of time zones: what the zone database knows, and what to suggest for words that only look like a zone.

use chrono_tz::{TZ_VARIANTS, Tz};

use super::cron::FieldFault;

/// Abbreviations that people type, with the zones they may mean. An abbreviation is no zone: it stands for one offset,
/// often for several, and never says when clocks change.
const ABBREVIATIONS: [(&str, &str); 30] = [
    ("ACDT", "Australia/Adelaide"),
    ("ACST", "Australia/Adelaide or Australia/Darwin"),
    ("AEDT", "Australia/Sydney"),
    ("AEST", "Australia/Sydney or Australia/Brisbane"),
    ("AWST", "Australia/Perth"),
    ("BRT", "America/Sao_Paulo"),
    ("BST", "Europe/London or Asia/Dhaka"),
    ("CDT", "America/Chicago or America/Havana"),
    ("CEST", "Europe/Berlin or Europe/Paris"),
    ("CET", "Europe/Berlin or Europe/Paris"),
    ("CST", "America/Chicago, Asia/Shanghai or America/Havana"),
    ("EDT", "America/New_York"),
    ("EEST", "Europe/Athens or Europe/Helsinki"),
    ("EET", "Europe/Athens or Europe/Helsinki"),
    ("EST", "America/New_York"),
    ("HKT", "Asia/Hong_Kong"),
    ("IST", "Asia/Kolkata, Europe/Dublin or Asia/Jerusalem"),
    ("JST", "Asia/Tokyo"),
    ("KST", "Asia/Seoul"),
    ("MDT", "America/Denver"),
    ("MSK", "Europe/Moscow"),
    ("MST", "America/Denver or America/Phoenix"),
    ("NZDT", "Pacific/Auckland"),
    ("NZST", "Pacific/Auckland"),
    ("PDT", "America/Los_Angeles"),
    ("PST", "America/Los_Angeles or Asia/Manila"),
    ("SAST", "Africa/Johannesburg"),
    ("SGT", "Asia/Singapore"),
    ("WEST", "Europe/Lisbon"),
    ("WET", "Europe/Lisbon"),
];

/// The zones that an abbreviation may mean, in words.
pub(super) fn meant_by(abbreviation: &str) -> Option<&'static str> {
    let known = ABBREVIATIONS.iter().find(|(known, _)| known.eq_ignore_ascii_case(abbreviation));
    known.map(|(_, zones)| *zones)
}

/// Reads the name of a zone of the zone database, as in `Europe/Berlin` or `UTC`.
///
/// # Errors
/// A name that the database does not have, with the names that may be meant.
pub fn parse_zone(name: &str) -> Result<Tz, FieldFault> {
    name.parse::<Tz>().map_err(|_| {
        let near = TZ_VARIANTS.iter().map(|zone| zone.name()).find(|known| known.eq_ignore_ascii_case(name));
        let rule = match near.or_else(|| meant_by(name)) {
            Some(meant) => format!("no such time zone; did you mean {meant}?"),
            None => "no such time zone; write a name as in Europe/Berlin, or UTC".to_owned(),
        };
        FieldFault::new("time_zone", name, rule)
    })
}
