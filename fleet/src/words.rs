//! Numbers and findings as sentences tell them. The one place for what several programs say alike.

use crate::outcome::{Evidence, GuardKind};

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

/// Bytes in binary units with three figures: `1.42 TiB`, `86.1 GiB`, `172 GiB`, `512 B`.
#[must_use]
#[allow(clippy::cast_precision_loss, reason = "three figures are shown, an f64 has fifteen")]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    /// From here on a value with no decimals would read 1024.
    const ROUNDS_UP: f64 = 1023.5;
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= ROUNDS_UP && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {}", UNITS[unit])
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
    fn sizes_have_three_figures() {
        const GIB: u64 = 1 << 30;
        for (size, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.00 KiB"),
            (1_561_311_674_368, "1.42 TiB"),
            (172 * GIB, "172 GiB"),
            (12 * GIB + GIB / 10, "12.1 GiB"),
            (1_024 * GIB - 1, "1.00 TiB"),
            (10 * GIB - 1, "10.0 GiB"),
            (100 * GIB - 1, "100 GiB"),
            (u64::MAX, "16.0 EiB"),
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
