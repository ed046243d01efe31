//! The link to the coordinator: dials, says hello, answers offers, reports, and begins anew whenever it breaks. A
//! broken link touches no attempt; the next hello tells everything. The hello is composed only after all of the old
//! link is gone, or is listened to no more, so that nothing is taken behind its back. Nothing is obeyed from a coordinator of a lower term.

mod backoff;
mod exports;
mod orders;
mod session;

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fleet::trash::TrashReport;
use mirror_certs::{ClientTls, TrustDomain};
use mirror_proto::convert::{JAIL_GAPS_MAX, trash_report_to_wire, utc_to_wire};
use mirror_proto::v1;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::backoff::Backoff;
pub use self::exports::Exporter;
pub use self::session::End;
use crate::autonomy::Autonomy;
use crate::config::Address;
use crate::executor::{Executor, Live};
use crate::probe::Prober;
use crate::state::State;
use crate::trash::Trash;
use crate::{clock, identity, outcome, text};

/// The same line about the link is not said again before.
const REPEAT_AFTER: Duration = Duration::from_secs(60);
/// Longest gap of the jail that is told, bytes.
const GAP_BYTES_MAX: usize = 200;

/// The link.
#[derive(Debug)]
pub struct Link {
    /// The attempts.
    pub executor: Executor,
    /// What is served to replicas.
    pub exporter: Exporter,
    /// What must never be forgotten.
    pub state: Mutex<State>,
    /// Certificate, key and CAs, read again at a reload.
    pub tls: Arc<ClientTls>,
    /// The fleet's name, to read the own certificate by.
    pub trust_domain: Option<TrustDomain>,
    /// Made at each start of the program.
    pub instance: Uuid,
    /// Where trees of deleted projects go.
    pub trash: Trash,
    /// Wakes a link that waits, after a reload.
    pub wake: Arc<Notify>,
    /// Looks at what projects need on this host.
    pub prober: Prober,
    /// What is done while there is no coordinator.
    pub autonomy: Arc<Autonomy>,
    /// Counts the renewals of the certificate since the start.
    pub renewals: watch::Sender<u64>,
    /// The CAs that the fleet trusts, as the coordinator told last: a reason to renew the certificate.
    pub trust: watch::Sender<Option<v1::Trust>>,
}

impl Link {
    /// Keeps a session with one of the coordinators until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut backoff = Backoff::default();
        let mut told = Told::default();
        let mut turn = 0;
        while !stop.is_cancelled() {
            let coordinators = self.executor.live().config.coordinators.clone();
            let address = &coordinators[turn % coordinators.len()];
            turn += 1;
            let end = tokio::select! {
                end = self.session(address) => end,
                () = stop.cancelled() => return,
            };
            self.autonomy.parted(matches!(end, End::Refused(_))).await;
            let pause = backoff.after(&end);
            told.tell(address, &end, backoff.alarm());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.wake.notified() => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn session(&self, address: &Address) -> End {
        match self.expired() {
            Some(until) => {
                End::Lost(format!("this host's certificate expired on {until} and is not renewed yet"))
            }
            None => session::run(self, address).await,
        }
    }

    /// When the certificate expired, if it has and was not renewed since the start: no handshake accepts it. After a
    /// renewal the coordinator's clock decides, and this host's may be wrong.
    fn expired(&self) -> Option<String> {
        let live = self.executor.live();
        let own = identity::read(&live.config.identity, self.trust_domain.as_ref()?).ok()?;
        let expired = clock::now() >= own.not_after && *self.renewals.borrow() == 0;
        expired.then(|| own.not_after.format("%Y-%m-%d").to_string())
    }

    /// There is a new certificate: a session moves over to it, and a link that waits does so no longer.
    pub fn renewed(&self) {
        self.renewals.send_modify(|count| *count += 1);
        self.wake.notify_one();
    }

    /// Everything the coordinator needs to know, so that it asks nothing back. `local` is this host's address on the
    /// connection.
    async fn hello(&self, local: IpAddr) -> v1::Hello {
        let live = self.executor.live();
        let (attempts, inventory) = (self.executor.descriptors().await, self.inventory().await);
        let trash = Some(trash_report_to_wire(&self.trash_report().await));
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        v1::Hello {
            instance_id: self.instance.to_string(),
            state_id: state.id().to_string(),
            highest_term: state.highest_term(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            rsync_version: live.version.to_string(),
            attempts,
            inventory: Some(inventory),
            slots: live.config.slots,
            jail_gaps: jail_gaps(&live.config),
            serve_uri: self.exporter.uri(local),
            external_roots: live.config.serve.external_roots(),
            trash,
        }
    }

    /// What is in the trash. Looked at as disks are.
    fn trash_report(&self) -> impl Future<Output = TrashReport> + use<> {
        let trash = self.trash.clone();
        async move {
            let looked = tokio::task::spawn_blocking(move || trash.report()).await;
            looked.unwrap_or_else(|error| {
                tracing::error!(%error, "cannot tell what is in the trash");
                TrashReport::default()
            })
        }
    }

    /// Disks and certificate. Looked at where a disk that hangs holds up nothing else.
    fn inventory(&self) -> impl Future<Output = v1::Inventory> + use<> {
        let (live, domain) = (self.executor.live(), self.trust_domain.clone());
        async move {
            let looked = tokio::task::spawn_blocking(move || take_inventory(&live, domain.as_ref())).await;
            looked.unwrap_or_else(|error| {
                tracing::error!(%error, "cannot tell of this host's disks");
                v1::Inventory::default()
            })
        }
    }

    /// The highest term of a coordinator that was obeyed.
    pub(crate) fn highest_term(&self) -> u64 {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).highest_term()
    }

    /// Notes the coordinator's term, before anything it says is followed.
    fn observe_term(&self, term: u64) -> Result<(), crate::state::StateError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).observe_term(term)
    }
}

fn take_inventory(live: &Live, domain: Option<&TrustDomain>) -> v1::Inventory {
    let roots = live.guard.roots().map(|(name, root)| {
        let space = root.space().unwrap_or_else(|error| {
            tracing::warn!(root = name, %error, "cannot examine the volume");
            crate::guard::Space { total_bytes: 0, free_bytes: 0, total_inodes: 0, free_inodes: 0 }
        });
        v1::Root {
            name: name.to_owned(),
            path: root.path().display().to_string(),
            total_bytes: space.total_bytes,
            free_bytes: space.free_bytes,
            total_inodes: space.total_inodes,
            free_inodes: space.free_inodes,
        }
    });
    let own = domain.map(|domain| identity::read(&live.config.identity, domain));
    let expires = match own {
        Some(Ok(own)) => Some(utc_to_wire(own.not_after)),
        Some(Err(error)) => {
            tracing::warn!(error = outcome::chain(&error), "cannot tell when the certificate expires");
            None
        }
        None => None,
    };
    v1::Inventory { roots: roots.collect(), certificate_expire_time: expires }
}

/// What the host lacks of the jail, bounded as the hello has it.
fn jail_gaps(config: &crate::config::Config) -> Vec<String> {
    if !config.jail {
        return vec!["the agent's own file switches the jail off".to_owned()];
    }
    let mut gaps = crate::jail::gaps();
    gaps.truncate(JAIL_GAPS_MAX);
    gaps.iter_mut().for_each(|gap| text::cut(gap, GAP_BYTES_MAX));
    gaps
}

/// What was said of the last session's end.
#[derive(Debug, Default)]
struct Told {
    last: Option<(String, Instant)>,
}

impl Told {
    /// One line for people about how a session ended; the same one not again and again.
    fn tell(&mut self, address: &Address, end: &End, alarm: bool) {
        let (grave, line) = describe(address, end, alarm);
        let repeated = |(last, at): &(String, Instant)| *last == line && at.elapsed() < REPEAT_AFTER;
        if self.last.as_ref().is_some_and(repeated) {
            return;
        }
        if grave {
            tracing::error!("{line}");
        } else {
            tracing::warn!("{line}");
        }
        self.last = Some((line, Instant::now()));
    }
}

/// Whether somebody has to do something about it, and what to say.
fn describe(address: &Address, end: &End, alarm: bool) -> (bool, String) {
    match end {
        End::Lost(why) => (false, format!("{address}: {why}; syncs go on without it")),
        End::Refused(why) => {
            let next = "trying again in some minutes. Next: mirror-agent enroll";
            (true, format!("{address} refuses this agent: {why}; {next}"))
        }
        End::StaleCoordinator(why) => {
            let fault = "another coordinator runs, or its store is an old copy";
            (true, format!("{address} is not obeyed: {why}; {fault}"))
        }
        End::Superseded if alarm => {
            let fault = "another host, or a second program on this one, uses its certificate";
            let next = "Next: mirrorctl agent revoke, then enrol both anew";
            (true, format!("ALARM: this agent's sessions are taken over again and again: {fault}. {next}"))
        }
        End::Superseded => {
            (false, format!("{address}: another session of this agent took over; coming back"))
        }
    }
}
