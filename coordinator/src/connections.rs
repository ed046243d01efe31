//! Who is connected: each connection with what it is held to, so that it can be cut, found and bounded. What is bounded
//! here: the connections of one identity, the calls that it has open over all of them, and what a connection without a
//! certificate may have open, until a token tells whose it is. Knows no TLS, no rpc and no policy.

use std::{
    collections::{HashMap, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mirror_certs::{CaBundle, Identity, Peer};
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::crowd::Place;

/// Open connections of one identity; the oldest one is cut for another. An agent has one or two, people a few.
pub const IDENTITY_CONNECTIONS_MAX: usize = 64;
/// Calls that one identity may have open at once, over all its connections: an agent has its session, people some
/// watches. What is open holds memory here, such as headers, for as long as the caller likes.
pub const IDENTITY_CALLS_MAX: usize = 512;
/// Calls that a connection without a certificate may have open at once, until a token tells whose it is.
pub const NOBODY_CALLS_MAX: usize = 4;
/// That somebody has too many is told again after this time at the earliest.
const TOLD_AGAIN: Duration = Duration::from_secs(60);

/// The other end of a connection. In the extensions of each of its requests.
#[derive(Debug, Clone)]
pub struct PeerInfo {
    /// Where it dials from.
    pub address: SocketAddr,
    /// Whom its certificate speaks for; `None`: it showed none, or one that names nobody of this fleet.
    pub peer: Option<Peer>,
    /// Counts connections from 1; for logs.
    pub connection: u64,
    /// Cuts the connection with all that goes on over it.
    pub kill: CancellationToken,
    /// It came over the coordinator's own socket, opened by this account; `address` is no other host's then.
    pub local_uid: Option<u32>,
    /// The calls that it, or all connections of its identity together, may have open besides those that are.
    calls: Arc<Semaphore>,
    /// What a connection without a certificate is held to; `None`: it has one.
    nobody: Option<Arc<Nobody>>,
}

/// What a connection without a certificate is held to: one of few places, and a short life.
#[derive(Debug)]
struct Nobody {
    place: Mutex<Option<Place>>,
    /// Somebody is known to be at the other end after all, by a token.
    vouched: CancellationToken,
    /// Who that is, and what he may have open then.
    whose: OnceLock<(String, Arc<Semaphore>)>,
    connections: Weak<Connections>,
}

impl PeerInfo {
    /// A connection from `address`, of whom `peer` says; entered nowhere.
    #[must_use]
    pub fn new(address: SocketAddr, peer: Option<Peer>, connection: u64) -> Self {
        let calls = Arc::new(Semaphore::new(IDENTITY_CALLS_MAX));
        let kill = CancellationToken::new();
        Self { address, peer, connection, kill, local_uid: None, calls, nobody: None }
    }

    /// Where it comes from, for logs.
    #[must_use]
    pub fn from(&self) -> String {
        self.local_uid.map_or_else(|| self.address.to_string(), |uid| format!("socket, uid {uid}"))
    }

    /// The calls that may be open besides those that are.
    #[must_use]
    pub fn calls(&self) -> &Arc<Semaphore> {
        self.whose().map_or(&self.calls, |(_, calls)| calls)
    }

    /// A token tells who is at the other end: the connection is this user's like any other now. The first one counts.
    pub fn vouch(&self, user: &Identity) {
        let Some(nobody) = &self.nobody else { return };
        let Some(connections) = nobody.connections.upgrade() else { return };
        // Held until it is known whose it is: the connection may end at this moment, and is then taken out by that.
        let mut open = connections.open();
        nobody.whose.get_or_init(|| {
            let key = key_of(user);
            // One that has ended meanwhile is counted nowhere: nobody would take it out again.
            let is_open = open.all.contains_key(&self.connection);
            let calls = if is_open { open.own(&key, self) } else { Arc::clone(&self.calls) };
            (key, calls)
        });
        drop(open);
        nobody.vouched.cancel();
        drop(nobody.place.lock().unwrap_or_else(PoisonError::into_inner).take());
    }

    /// Whether nobody is known to be at the other end (yet).
    #[must_use]
    pub fn is_nobody(&self) -> bool {
        self.nobody.is_some() && self.whose().is_none()
    }

    /// Comes back when somebody is; `None`: that was known from the beginning.
    pub(crate) fn vouched(&self) -> Option<WaitForCancellationFutureOwned> {
        self.nobody.as_ref().map(|nobody| nobody.vouched.clone().cancelled_owned())
    }

    fn whose(&self) -> Option<&(String, Arc<Semaphore>)> {
        self.nobody.as_ref()?.whose.get()
    }

    /// Whose connections it counts among.
    fn key(&self) -> Option<String> {
        let vouched = self.whose().map(|(key, _)| key.clone());
        vouched.or_else(|| self.peer.as_ref().map(|peer| key_of(&peer.identity)))
    }
}

/// The open connections.
#[derive(Debug, Default)]
pub struct Connections {
    open: Mutex<Open>,
    count: AtomicU64,
    /// Grows with each connection that ends.
    ended: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Open {
    all: HashMap<u64, PeerInfo>,
    /// Of those of which it is known, by whose they are.
    by_identity: HashMap<String, Own>,
    /// When it was last told that somebody has too many.
    told: Option<Instant>,
}

/// What one identity has open.
#[derive(Debug)]
struct Own {
    /// Its connections, the oldest first.
    connections: VecDeque<u64>,
    calls: Arc<Semaphore>,
}

impl Default for Own {
    fn default() -> Self {
        Self { connections: VecDeque::new(), calls: Arc::new(Semaphore::new(IDENTITY_CALLS_MAX)) }
    }
}

impl Open {
    /// Counts a connection among those of an identity, whose oldest ones may have to go for it; what it may have open.
    fn own(&mut self, key: &str, info: &PeerInfo) -> Arc<Semaphore> {
        let own = self.by_identity.entry(key.to_owned()).or_default();
        own.connections.push_back(info.connection);
        let calls = Arc::clone(&own.calls);
        // All that is too much, every time: those that were cut are here until they are over.
        let surplus = own.connections.len().saturating_sub(IDENTITY_CONNECTIONS_MAX);
        if surplus > 0 {
            if self.told.is_none_or(|at| at.elapsed() >= TOLD_AGAIN) {
                tracing::warn!(who = key, address = %info.address, "too many connections of one identity; its oldest are cut");
                self.told = Some(Instant::now());
            }
            for oldest in own.connections.iter().take(surplus) {
                self.all.get(oldest).inspect(|info| info.kill.cancel());
            }
        }
        calls
    }
}

impl Connections {
    /// Cuts every connection of this identity at once and says how many there were. Names match without case.
    pub fn kill(&self, identity: &Identity) -> usize {
        let open = self.open();
        let hit = open.by_identity.get(&key_of(identity)).into_iter().flat_map(|own| &own.connections);
        hit.filter_map(|connection| open.all.get(connection)).map(|info| info.kill.cancel()).count()
    }

    /// How many connections of this identity are open.
    #[must_use]
    pub fn count_of(&self, identity: &Identity) -> usize {
        self.open().by_identity.get(&key_of(identity)).map_or(0, |own| own.connections.len())
    }

    /// Cuts every connection whose certificate comes from none of these CAs; says how many there were.
    pub fn kill_foreign(&self, trusted: &CaBundle) -> usize {
        let open = self.open();
        let foreign =
            |info: &&PeerInfo| info.peer.as_ref().is_some_and(|peer| trusted.issuer_hash(peer).is_none());
        open.all.values().filter(foreign).map(|info| info.kill.cancel()).count()
    }

    /// Where an open connection comes from.
    #[must_use]
    pub fn address_of(&self, connection: u64) -> Option<SocketAddr> {
        self.open().all.get(&connection).map(|info| info.address)
    }

    /// Cuts every connection; says how many there were.
    pub fn kill_all(&self) -> usize {
        self.open().all.values().map(|info| info.kill.cancel()).count()
    }

    /// Grows with each connection that ends.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<u64> {
        self.ended.subscribe()
    }

    /// How many connections are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open().all.len()
    }

    /// Whether no connection is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection from the network. `place`: what it holds among those without a certificate, if it has none.
    pub(crate) fn enter(
        self: &Arc<Self>,
        address: SocketAddr,
        peer: Option<Peer>,
        place: Option<Place>,
    ) -> PeerInfo {
        let mut info = PeerInfo::new(address, peer, self.next());
        if let Some(place) = place {
            info.calls = Arc::new(Semaphore::new(NOBODY_CALLS_MAX));
            info.nobody = Some(Arc::new(Nobody {
                place: Mutex::new(Some(place)),
                vouched: CancellationToken::new(),
                whose: OnceLock::new(),
                connections: Arc::downgrade(self),
            }));
        }
        let mut open = self.open();
        if let Some(key) = info.key() {
            info.calls = open.own(&key, &info);
        }
        open.all.insert(info.connection, info.clone());
        info
    }

    /// Enters a connection over the coordinator's own socket, opened by the account `uid`.
    pub(crate) fn enter_local(&self, uid: u32) -> PeerInfo {
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let info = PeerInfo { local_uid: Some(uid), ..PeerInfo::new(nowhere, None, self.next()) };
        self.open().all.insert(info.connection, info.clone());
        info
    }

    /// The number of the next connection.
    fn next(&self) -> u64 {
        self.count.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The connection is over.
    pub(crate) fn leave(&self, info: &PeerInfo) {
        let mut open = self.open();
        open.all.remove(&info.connection);
        if let Some(key) = info.key()
            && let Some(own) = open.by_identity.get_mut(&key)
        {
            own.connections.retain(|connection| *connection != info.connection);
            if own.connections.is_empty() {
                open.by_identity.remove(&key);
            }
        }
        drop(open);
        self.ended.send_modify(|count| *count += 1);
    }
}

/// Names are one without case.
fn key_of(identity: &Identity) -> String {
    identity.to_string().to_ascii_lowercase()
}
