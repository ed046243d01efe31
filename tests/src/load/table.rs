//! One table of figures: ours, the floor of the same run, their ratio, and the target. Decides nothing but
//! whether a figure meets its target.

use std::{fmt::Write as _, time::Duration};

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// What is measured, and in what.
    pub(crate) what: String,
    /// Ours.
    pub(crate) ours: String,
    /// The floor or the peer; empty: none.
    pub(crate) floor: String,
    /// Ours over the floor (or the floor over ours, for rates: then more is better).
    pub(crate) ratio: Option<f64>,
    /// What document 7 of the design asks for; empty: nothing.
    pub(crate) target: String,
    /// Whether it is met; `None`: there is no target.
    pub(crate) ok: Option<bool>,
}

impl Row {
    /// A figure without floor and target.
    pub(crate) fn new(what: impl Into<String>, ours: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            ours: ours.into(),
            floor: String::new(),
            ratio: None,
            target: String::new(),
            ok: None,
        }
    }

    /// What it is compared with.
    pub(crate) fn floor(mut self, floor: impl Into<String>, ratio: f64) -> Self {
        self.floor = floor.into();
        self.ratio = Some(ratio);
        self
    }

    /// A peer's figure, taken elsewhere: no ratio within one run.
    pub(crate) fn peer(mut self, peer: impl Into<String>) -> Self {
        self.floor = peer.into();
        self
    }

    /// What it should be, and whether it is.
    pub(crate) fn target(mut self, target: impl Into<String>, ok: bool) -> Self {
        self.target = target.into();
        self.ok = Some(ok);
        self
    }

    fn cells(&self) -> [String; 6] {
        [
            self.what.clone(),
            self.ours.clone(),
            if self.floor.is_empty() { "-".to_owned() } else { self.floor.clone() },
            self.ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            if self.target.is_empty() { "-".to_owned() } else { self.target.clone() },
            self.ok.map_or("-", |ok| if ok { "ok" } else { "NOT OK" }).to_owned(),
        ]
    }
}

/// The table in Markdown, its columns aligned for a terminal too.
pub(crate) fn render(rows: &[Row]) -> String {
    let head = ["what", "ours", "floor or peer", "ratio", "target", ""].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (cell, width) in line.iter().zip(widths) {
            let _ = write!(text, "| {cell:width$} ");
        }
        text.push_str("|\n");
        if number == 0 {
            for width in widths {
                let _ = write!(text, "|{}", "-".repeat(width + 2));
            }
            text.push_str("|\n");
        }
    }
    text
}

/// Samples of one figure.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    /// One more.
    pub(crate) fn push(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The sample below which this part of a hundred lies (nearest rank); zero without samples.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }

    /// The middle one.
    pub(crate) fn median(&self) -> Duration {
        self.percentile(50)
    }

    /// `p50 / p99 ms`.
    pub(crate) fn show(&self) -> String {
        format!("{:.2} / {:.2} ms", millis(self.percentile(50)), millis(self.percentile(99)))
    }
}

impl Extend<Duration> for Samples {
    fn extend<T: IntoIterator<Item = Duration>>(&mut self, samples: T) {
        self.0.extend(samples);
    }
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

/// The ratio of two durations; 0 over nothing.
pub(crate) fn ratio(ours: Duration, floor: Duration) -> f64 {
    if floor.is_zero() { 0.0 } else { ours.as_secs_f64() / floor.as_secs_f64() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        let mut samples = Samples::default();
        assert_eq!(samples.median(), Duration::ZERO);
        samples.extend((1..=200).rev().map(Duration::from_millis));
        assert_eq!(samples.percentile(50), Duration::from_millis(100));
        assert_eq!(samples.percentile(99), Duration::from_millis(198));
        assert_eq!(samples.show(), "100.00 / 198.00 ms");
    }

    #[test]
    fn every_row_is_printed_with_its_verdict() {
        let rows = [
            Row::new("a", "1").floor("2", 0.5).target("≤ 1", true),
            Row::new("b", "3").target("≤ 1", false),
            Row::new("c", "4"),
        ];
        let text = render(&rows);
        assert_eq!(text.lines().count(), 5);
        assert!(text.contains("| 0.50 ") && text.contains("| ok ") && text.contains("| NOT OK "), "{text}");
    }
}
