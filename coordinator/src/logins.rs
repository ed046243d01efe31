//! Failed logins, by user and by network: the more of them, the longer the next one waits. Names that no user has are
//! counted like others, or the waiting would tell them apart.
//!
//! Whoever wants to can make one user wait, for at most [`WAIT_MAX`] after each try: certificates and the coordinator's
//! own socket do not ask here.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fleet::{id::Name, time::Mono};

use crate::rpc::enrollment::network;

/// Failures of one user that cost nothing: people mistype.
pub const USER_TRIES_FREE: u32 = 5;
/// Failures from one network that cost nothing: many people may sit behind one address.
pub const ADDRESS_TRIES_FREE: u32 = 20;
/// The first wait; each later one is twice as long.
pub const WAIT_FIRST: Duration = Duration::from_secs(2);
/// The longest wait.
pub const WAIT_MAX: Duration = Duration::from_secs(15 * 60);
/// Failures are forgotten when there was none for so long.
pub const FORGOTTEN_AFTER: Duration = Duration::from_secs(60 * 60);
/// Users and networks that are remembered; beyond it those are forgotten first that failed longest ago.
pub const ENTRIES_MAX: usize = 8_192;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Key {
    User(String),
    Network(IpAddr),
}

#[derive(Debug, Clone, Copy)]
struct Failures {
    count: u32,
    last: Mono,
}

/// Who failed, how often and when last.
#[derive(Debug, Default)]
pub struct Logins(Mutex<HashMap<Key, Failures>>);

impl Logins {
    /// A try begins. It counts as failed until [`Logins::succeeded`] or [`Logins::undone`] says otherwise, so that
    /// many at once are not better off than one after the other.
    ///
    /// # Errors
    /// How long to wait; then it does not count.
    pub fn begin(&self, now: Mono, user: &Name, address: IpAddr) -> Result<(), Duration> {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let keys = keys(user, address);
        let waits =
            keys.iter().filter_map(|(key, free)| entries.get(key).and_then(|one| one.wait(now, *free)));
        if let Some(wait) = waits.max() {
            return Err(wait);
        }
        for (key, _) in keys {
            make_room(&mut entries, now, &key);
            let one = entries.entry(key).or_insert(Failures { count: 0, last: now });
            *one = Failures { count: one.count.saturating_add(1), last: now };
        }
        Ok(())
    }

    /// It was the right password: the user's failures are forgotten, the network keeps its earlier ones, or whoever has
    /// one account could try all others.
    pub fn succeeded(&self, user: &Name, address: IpAddr) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let [(of_user, _), (of_network, _)] = keys(user, address);
        entries.remove(&of_user);
        take_back(&mut entries, &of_network);
    }

    /// It was neither right nor wrong.
    pub fn undone(&self, user: &Name, address: IpAddr) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, _) in keys(user, address) {
            take_back(&mut entries, &key);
        }
    }
}

impl Failures {
    /// How long the next try must wait; `None`: it need not.
    fn wait(self, now: Mono, free: u32) -> Option<Duration> {
        if self.is_forgotten(now) {
            return None;
        }
        let doublings = self.count.checked_sub(free)?;
        let wait = WAIT_FIRST.saturating_mul(1u32.checked_shl(doublings).unwrap_or(u32::MAX)).min(WAIT_MAX);
        wait.checked_sub(now.since(self.last)).filter(|left| !left.is_zero())
    }

    fn is_forgotten(self, now: Mono) -> bool {
        now.since(self.last) >= FORGOTTEN_AFTER
    }
}

fn keys(user: &Name, address: IpAddr) -> [(Key, u32); 2] {
    [(Key::User(user.folded()), USER_TRIES_FREE), (Key::Network(network(address)), ADDRESS_TRIES_FREE)]
}

fn take_back(entries: &mut HashMap<Key, Failures>, key: &Key) {
    if let Some(one) = entries.get_mut(key) {
        one.count = one.count.saturating_sub(1);
    }
}

fn make_room(entries: &mut HashMap<Key, Failures>, now: Mono, key: &Key) {
    if entries.get(key).is_some_and(|one| one.is_forgotten(now)) {
        entries.remove(key);
    }
    if entries.len() < ENTRIES_MAX || entries.contains_key(key) {
        return;
    }
    entries.retain(|_, one| !one.is_forgotten(now));
    if entries.len() >= ENTRIES_MAX {
        let oldest = entries.iter().min_by_key(|(_, one)| one.last).map(|(key, _)| key.clone());
        oldest.map(|key| entries.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(1_000_000);

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn ip(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[test]
    fn a_user_waits_longer_after_each_failure_and_others_do_not() {
        let logins = Logins::default();
        for n in 0..USER_TRIES_FREE {
            assert_eq!(logins.begin(START, &name("maria"), ip(n)), Ok(()));
        }
        assert_eq!(logins.begin(START, &name("MARIA"), ip(99)), Err(WAIT_FIRST), "from wherever");
        assert_eq!(logins.begin(START, &name("jo"), ip(99)), Ok(()));
        let mut now = START;
        let mut wait = WAIT_FIRST;
        for n in 100..130 {
            now = now.plus(wait);
            assert_eq!(logins.begin(now, &name("maria"), ip(n)), Ok(()));
            wait = (wait * 2).min(WAIT_MAX);
            assert_eq!(logins.begin(now, &name("maria"), ip(n)), Err(wait));
        }
        assert_eq!(wait, WAIT_MAX);
        assert_eq!(logins.begin(now.plus(FORGOTTEN_AFTER), &name("maria"), ip(1)), Ok(()));
        assert_eq!(
            logins.begin(now.plus(FORGOTTEN_AFTER), &name("maria"), ip(1)),
            Ok(()),
            "from the beginning"
        );
    }

    #[test]
    fn one_address_that_tries_many_users_waits() {
        let logins = Logins::default();
        for n in 0..ADDRESS_TRIES_FREE {
            assert_eq!(logins.begin(START, &name(&format!("u{n}")), ip(7)), Ok(()));
        }
        assert_eq!(logins.begin(START, &name("another"), ip(7)), Err(WAIT_FIRST));
        assert_eq!(logins.begin(START, &name("another"), ip(8)), Ok(()));
    }

    #[test]
    fn a_success_forgets_the_users_failures_and_not_the_networks() {
        let logins = Logins::default();
        for _ in 0..USER_TRIES_FREE * 10 {
            assert_eq!(logins.begin(START, &name("maria"), ip(1)), Ok(()));
            logins.succeeded(&name("maria"), ip(1));
        }
        for n in 0..ADDRESS_TRIES_FREE {
            assert_eq!(logins.begin(START, &name(&format!("u{n}")), ip(1)), Ok(()));
        }
        assert!(logins.begin(START, &name("maria"), ip(1)).is_err());
    }

    #[test]
    fn what_was_neither_right_nor_wrong_does_not_count() {
        let logins = Logins::default();
        for _ in 0..100 {
            assert_eq!(logins.begin(START, &name("maria"), ip(1)), Ok(()));
            logins.undone(&name("maria"), ip(1));
        }
    }

    #[test]
    fn the_table_is_bounded_and_forgets_the_oldest() {
        let logins = Logins::default();
        for n in 0..u32::try_from(ENTRIES_MAX).unwrap() {
            let now = START.plus(Duration::from_millis(u64::from(n)));
            assert_eq!(logins.begin(now, &name(&format!("u{n}")), ip(n)), Ok(()));
        }
        let entries = logins.0.lock().unwrap();
        assert_eq!(entries.len(), ENTRIES_MAX);
        assert!(!entries.contains_key(&Key::User("u0".to_owned())));
        assert!(entries.contains_key(&Key::User(format!("u{}", ENTRIES_MAX - 1))));
    }
}
