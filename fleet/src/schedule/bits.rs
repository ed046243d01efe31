//! Sets of small numbers as machine words, so that "the next matching minute" is two instructions.
//!
//! Knows nothing of time: a number is only a bit.

use super::cron::{YEAR_LAST, YEAR_MIN};

/// A set of numbers from 0 to 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bits(u64);

impl Bits {
    /// All numbers from `first` to `last`, both included; empty when `first > last`.
    pub(super) const fn span(first: u32, last: u32) -> Self {
        if first > last {
            return Self(0);
        }
        Self((u64::MAX << first) & (u64::MAX >> (63 - last)))
    }

    pub(super) const fn insert(&mut self, number: u32) {
        self.0 |= 1 << number;
    }

    pub(super) const fn contains(self, number: u32) -> bool {
        number < 64 && self.0 & (1 << number) != 0
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(super) const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The smallest member that is `from` or more.
    pub(super) const fn next(self, from: u32) -> Option<u32> {
        if from >= 64 {
            return None;
        }
        let rest = self.0 & (u64::MAX << from);
        if rest == 0 { None } else { Some(rest.trailing_zeros()) }
    }

    /// The days of a month (1 to 35) that fall on one of these weekdays (0 = Monday), in a month whose day 1
    /// falls on `first_weekday`.
    pub(super) const fn weekdays_as_days(self, first_weekday: u32) -> Self {
        const WEEK: u64 = 0x7f;
        /// Copies a week's seven bits into five weeks in a row.
        const FIVE_WEEKS: u64 = 1 | 1 << 7 | 1 << 14 | 1 << 21 | 1 << 28;
        let week = ((self.0 >> first_weekday) | (self.0 << (7 - first_weekday))) & WEEK;
        Self((week * FIVE_WEEKS) << 1)
    }
}

/// A set of years from [`YEAR_MIN`] to [`YEAR_LAST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Years([Bits; 4]);

impl Years {
    /// Adds a year; one that the search never reaches is dropped.
    pub(super) const fn insert(&mut self, year: u32) {
        if year >= YEAR_MIN && year <= YEAR_LAST {
            let index = year - YEAR_MIN;
            self.0[(index / 64) as usize].insert(index % 64);
        }
    }

    /// Whether `year` is a member.
    pub(super) const fn contains(&self, year: u32) -> bool {
        if year < YEAR_MIN || year > YEAR_LAST {
            return false;
        }
        let index = year - YEAR_MIN;
        self.0[(index / 64) as usize].contains(index % 64)
    }
}
