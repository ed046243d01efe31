//! Numbers and findings as sentences tell them. The one place for what several programs say alike.

use crate::{
    outcome::{Evidence, GuardKind},
    time::Wall,
};

/// How a sentence has an instant: `2026-11-22 06:30:28 UTC`.
const INSTANT: &str = "%Y-%m-%d %H:%M:%S UTC";

/// An instant, to the second: `2026-11-22 06:30:28 UTC`.
#[must_use]
pub fn instant(at: Wall) -> String {
    at.to_utc().format(INSTANT).to_string()
}

/// A count with commas: `61,204`.
#[must_use]
pub fn commas(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in binary units with three figures: `1.42 TiB`, `86.1 GiB`, `172 GiB`, `512 B`. Rounded down: room that is not
/// there is not promised, and what is short of a limit never reads as the limit.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [(&str, u64); 6] = [
        ("EiB", 1 << 60),
        ("PiB", 1 << 50),
        ("TiB", 1 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ];
    let Some((name, unit)) = UNITS.into_iter().find(|(_, unit)| bytes >= *unit) else {
        return format!("{bytes} B");
    };
    let hundredths = u128::from(bytes) * 100 / u128::from(unit);
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match whole {
        0..10 => format!("{whole}.{rest:02} {name}"),
        10..100 => format!("{whole}.{} {name}", rest / 10),
        _ => format!("{whole} {name}"),
    }
}

impl Evidence {
    /// What was found and what is allowed, as one clause. `deleted_allowed`: the attempt that found it had deleted up
    /// to the limit, and what it found came on top; so it is with the first attempt of a hold.
    #[must_use]
    pub fn figures(&self, deleted_allowed: bool) -> String {
        let told = |otherwise: &str| match self.sentence.trim_end_matches('.') {
            "" => otherwise.to_owned(),
            sentence => sentence.to_owned(),
        };
        match self.kind {
            GuardKind::Deletes => {
                let deleted = if deleted_allowed { self.allowed } else { 0 };
                let wanted = self.wanted.saturating_add(deleted);
                format!("{} deletes wanted, {} allowed", commas(wanted), commas(self.allowed))
            }
            GuardKind::EmptyUpstream => "the upstream lists nothing".to_owned(),
            GuardKind::SentinelMissing => match self.names.first() {
                Some(name) if self.wanted <= 1 => format!("the upstream lacks {name}, which must exist"),
                Some(name) => {
                    format!("the upstream lacks {} paths that must exist, first {name}", commas(self.wanted))
                }
                None => told("the upstream lacks a path that must exist"),
            },
            GuardKind::Shrink => {
                format!("the tree lost {} % of its files or bytes, {} % hold it", self.wanted, self.allowed)
            }
            GuardKind::Adoption => told("the destination holds files that the fleet did not put there"),
            GuardKind::Quota => told("the tree is larger than its quota"),
            GuardKind::UpstreamBehind => told("the upstream is older than what is served"),
        }
    }

    /// What was found, in as few words as tell two findings of one guard apart.
    #[must_use]
    pub fn found(&self) -> String {
        match self.kind {
            GuardKind::Deletes => format!("{} deletes", commas(self.wanted)),
            GuardKind::EmptyUpstream => "an empty upstream".to_owned(),
            GuardKind::SentinelMissing => format!("{} missing paths", commas(self.wanted)),
            GuardKind::Shrink => format!("a loss of {} %", self.wanted),
            GuardKind::Adoption => "strange files".to_owned(),
            GuardKind::Quota => format!("{} bytes too many", commas(self.wanted)),
            GuardKind::UpstreamBehind => format!("an upstream {} seconds behind", commas(self.wanted)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(kind: GuardKind, wanted: u64, names: &[&str]) -> Evidence {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Evidence { kind, wanted, allowed: 40_000, names, sentence: String::new() }
    }

    #[test]
    fn counts() {
        for (count, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (61_204, "61,204"), (1_402_118, "1,402,118")]
        {
            assert_eq!(commas(count), text);
        }
    }

    #[test]
    fn instants_are_of_utc_to_the_second() {
        assert_eq!(instant(Wall(1_795_329_028_999)), "2026-11-22 06:30:28 UTC");
        assert_eq!(instant(Wall(-1)), "1969-12-31 23:59:59 UTC");
    }

    #[test]
    fn sizes_have_three_figures() {
        const GIB: u64 = 1 << 30;
        for (size, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.00 KiB"),
            (1_561_311_674_368, "1.42 TiB"),
            (172 * GIB, "172 GiB"),
            (12 * GIB + GIB / 10 + 1, "12.1 GiB"),
            (1_024 * GIB - 1, "1023 GiB"),
            (10 * GIB - 1, "9.99 GiB"),
            (100 * GIB - 1, "99.9 GiB"),
            (u64::MAX, "15.9 EiB"),
        ] {
            assert_eq!(bytes(size), text);
        }
    }

    #[test]
    fn findings_have_their_figures() {
        let deletes = evidence(GuardKind::Deletes, 21_204, &[]);
        assert_eq!(deletes.figures(true), "61,204 deletes wanted, 40,000 allowed");
        assert_eq!(deletes.figures(false), "21,204 deletes wanted, 40,000 allowed");
        assert_eq!(deletes.found(), "21,204 deletes");
        let missing = evidence(GuardKind::SentinelMissing, 2, &["dists/stable/Release", "pool"]);
        assert_eq!(
            missing.figures(false),
            "the upstream lacks 2 paths that must exist, first dists/stable/Release"
        );
        let adoption = Evidence {
            sentence: "12 of 40 files would go.".to_owned(),
            ..evidence(GuardKind::Adoption, 12, &[])
        };
        assert_eq!(adoption.figures(true), "12 of 40 files would go");
    }
}
