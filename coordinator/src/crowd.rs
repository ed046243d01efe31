//! A bounded number of strangers at once, of whom none can keep others out: who comes when every place is taken gets
//! one, and the oldest of the address that holds the most of them goes. So a flood from one place costs only itself,
//! and one from many places costs whoever is slower than the flood takes to go round. Knows no protocol.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Those who hold a place. Cheap to clone: clones are the same crowd.
#[derive(Debug, Clone)]
pub struct Crowd {
    places: usize,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// Counts those who came; orders them by age.
    came: u64,
    held: usize,
    /// By where they come from, the oldest first.
    by_source: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
}

impl Crowd {
    /// A crowd with so many places, at least one.
    #[must_use]
    pub fn new(places: usize) -> Self {
        Self { places: places.max(1), table: Arc::default() }
    }

    /// A place for who comes from this address; another one may have to go for it.
    #[must_use]
    pub fn enter(&self, address: IpAddr) -> Place {
        let (source, leave) = (source_of(address), CancellationToken::new());
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.held >= self.places {
            table.push_out();
        }
        table.came += 1;
        table.held += 1;
        let number = table.came;
        table.by_source.entry(source).or_default().push_back((number, leave.clone()));
        Place { table: Arc::clone(&self.table), source, number, leave }
    }

    /// How many places are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).held
    }

    /// Whether nobody is here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Table {
    /// The oldest of the most crowded source goes.
    fn push_out(&mut self) {
        let age = |queue: &VecDeque<(u64, CancellationToken)>| {
            queue.front().map_or(u64::MAX, |(number, _)| *number)
        };
        let most = self.by_source.iter().max_by_key(|(_, queue)| (queue.len(), u64::MAX - age(queue)));
        let Some(source) = most.map(|(source, _)| *source) else { return };
        if let Some((_, leave)) = self.by_source.get_mut(&source).and_then(VecDeque::pop_front) {
            leave.cancel();
            self.left(source);
        }
    }

    fn left(&mut self, source: IpAddr) {
        self.held -= 1;
        if self.by_source.get(&source).is_some_and(VecDeque::is_empty) {
            self.by_source.remove(&source);
        }
    }
}

/// A place in a [`Crowd`], held until it is dropped or somebody else gets it.
#[derive(Debug)]
pub struct Place {
    table: Arc<Mutex<Table>>,
    source: IpAddr,
    number: u64,
    leave: CancellationToken,
}

impl Place {
    /// Comes back when somebody else has got this place.
    pub fn pushed_out(&self) -> WaitForCancellationFutureOwned {
        self.leave.clone().cancelled_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(queue) = table.by_source.get_mut(&self.source) else { return };
        if let Ok(at) = queue.binary_search_by_key(&self.number, |(number, _)| *number) {
            queue.remove(at);
            table.left(self.source);
        }
    }
}

/// Who counts as one: an address, or the network of 64 bits that one host has for itself in IPv6.
fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOD: [u8; 4] = [192, 0, 2, 66];

    #[test]
    fn a_flood_from_one_address_costs_only_itself() {
        let crowd = Crowd::new(3);
        let honest = crowd.enter([192, 0, 2, 1].into());
        let flood: Vec<Place> = (0..100).map(|_| crowd.enter(FLOOD.into())).collect();
        let stays = |place: &Place| !place.leave.is_cancelled();
        assert!(stays(&honest) && crowd.len() == 3);
        let held: Vec<usize> = (0..100).filter(|at| stays(&flood[*at])).collect();
        assert_eq!(held, [98, 99], "the oldest go first");
        let late = crowd.enter([192, 0, 2, 2].into());
        assert!(stays(&late) && stays(&honest) && !stays(&flood[98]));
        drop(flood);
        assert_eq!(crowd.len(), 2, "who was pushed out gives no place back");
        drop((honest, late));
        assert!(crowd.is_empty() && crowd.table.lock().unwrap().by_source.is_empty());
    }

    #[test]
    fn one_of_each_address_makes_the_oldest_go() {
        let crowd = Crowd::new(2);
        let places: Vec<Place> = (1..=3).map(|n| crowd.enter([192, 0, 2, n].into())).collect();
        let gone: Vec<bool> = places.iter().map(|place| place.leave.is_cancelled()).collect();
        assert_eq!(gone, [true, false, false]);
    }

    #[test]
    fn a_host_is_one_source_however_many_addresses_it_takes() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:ffff:ffff:ffff"));
        assert_ne!(source("2001:db8:0:1::1"), source("2001:db8:0:2::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
    }
}
