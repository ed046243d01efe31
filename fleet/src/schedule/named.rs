//! Named cadences: so often, and it does not matter when. Each is a cron trigger at the beginning of its period; where
//! inside the period a project then fires is the matter of [`super::spread`].

use std::{fmt, str::FromStr};

use super::{Cron, CronFields};

/// How often, by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    /// Once in each hour, from its minute 0 on.
    Hourly,
    /// Once in each day, from 00:00 on.
    Daily,
    /// Once in each week, from Monday 00:00 on.
    Weekly,
    /// Once in each month, from its first day 00:00 on.
    Monthly,
    /// Once in each year, from 1 January 00:00 on.
    Yearly,
}

/// A text that names no cadence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?}: use hourly, daily, weekly, monthly or yearly")]
pub struct NamedFault(String);

/// Longest part of a faulty name that an error shows, in characters.
const SHOWN_CHARS_MAX: usize = 32;

impl Named {
    /// Every name, the most frequent first.
    pub const ALL: [Self; 5] = [Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    /// The shortest time from the beginning of one period to the next, in seconds: a month has 28 days, a year 365.
    #[must_use]
    pub const fn period_seconds(self) -> u64 {
        match self {
            Self::Hourly => 3_600,
            Self::Daily => 86_400,
            Self::Weekly => 7 * 86_400,
            Self::Monthly => 28 * 86_400,
            Self::Yearly => 365 * 86_400,
        }
    }

    /// The trigger at the beginning of each period.
    #[must_use]
    pub fn cron(self) -> Cron {
        let zero = || Some("0".to_owned());
        let (one, midnight) =
            (Some("1".to_owned()), CronFields { hour: zero(), minute: zero(), ..CronFields::default() });
        let fields = match self {
            Self::Hourly => CronFields { minute: zero(), ..CronFields::default() },
            Self::Daily => midnight,
            Self::Weekly => CronFields { day_of_week: Some("mon".to_owned()), ..midnight },
            Self::Monthly => CronFields { day: one, ..midnight },
            Self::Yearly => CronFields { month: one.clone(), day: one, ..midnight },
        };
        Cron::parse(fields).expect("these fields are right (a test)").called(self)
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}

impl FromStr for Named {
    type Err = NamedFault;

    fn from_str(text: &str) -> Result<Self, NamedFault> {
        let wanted = text.trim();
        let known = Self::ALL.into_iter().find(|named| named.to_string().eq_ignore_ascii_case(wanted));
        known.ok_or_else(|| NamedFault(wanted.chars().take(SHOWN_CHARS_MAX).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_has_a_trigger() {
        for named in Named::ALL {
            assert_eq!(named.to_string().parse(), Ok(named));
            assert_eq!(named.cron().named(), Some(named));
        }
        assert_eq!("DAILY".parse(), Ok(Named::Daily));
        assert!("fortnightly".parse::<Named>().is_err());
        let weekly = Named::Weekly.cron().fields().to_string();
        assert_eq!(weekly, "minute=0 hour=0 day_of_week=mon");
    }
}
