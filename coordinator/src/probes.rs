//! Looks that agents were asked for and have not answered yet. A look belongs to one session and to whoever waits for
//! it: with either of them it is forgotten. Nothing of it is stored. Does not know what is looked at.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleet::id::{AgentUid, Epoch};
use mirror_proto::{convert::Probed, v1};
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

/// Looks at one agent at once: as many as the agent takes.
pub const PROBES_PER_AGENT_MAX: usize = 4;
/// How long an agent may take for a look.
pub const LOOK_TIME_MAX: Duration = Duration::from_secs(50);
/// How long it may take when it counts an upstream's tree as well.
pub const SIZE_TIME_MAX: Duration = Duration::from_secs(120);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// [`PROBES_PER_AGENT_MAX`].
    #[error("{PROBES_PER_AGENT_MAX} checks go on on it already; check again later")]
    Busy,
    /// The session ended meanwhile, or just before.
    #[error("its connection was lost meanwhile; check again")]
    Gone,
    /// It said nothing in time.
    #[error("it did not answer in time; its disks may hang, or its version may be too old to be asked")]
    Late,
}

/// All of them.
#[derive(Debug, Default)]
pub struct Probes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: u64,
    waiting: BTreeMap<u64, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    agent: AgentUid,
    session: Epoch,
    host: Option<String>,
    answer: oneshot::Sender<Probed>,
}

/// One look that somebody waits for; dropping it forgets it.
#[derive(Debug)]
pub struct Ticket {
    probes: Arc<Probes>,
    id: u64,
    answer: oneshot::Receiver<Probed>,
}

impl Probes {
    /// Enters a look at an agent, over this session. With an upstream's `host` it counts as a connection to it.
    ///
    /// # Errors
    /// [`Unanswered::Busy`].
    pub fn begin(
        self: &Arc<Self>,
        agent: AgentUid,
        session: Epoch,
        host: Option<String>,
    ) -> Result<Ticket, Unanswered> {
        let mut state = self.state();
        if state.waiting.values().filter(|one| one.agent == agent).count() >= PROBES_PER_AGENT_MAX {
            return Err(Unanswered::Busy);
        }
        state.last += 1;
        let id = state.last;
        let (sender, answer) = oneshot::channel();
        state.waiting.insert(id, Waiting { agent, session, host, answer: sender });
        drop(state);
        Ok(Ticket { probes: Arc::clone(self), id, answer })
    }

    /// An agent has answered. False: nobody waits for that, or it is another agent's.
    pub fn answer(&self, agent: AgentUid, id: u64, probed: Probed) -> bool {
        let mut state = self.state();
        if state.waiting.get(&id).is_none_or(|one| one.agent != agent) {
            return false;
        }
        state.waiting.remove(&id).is_some_and(|one| one.answer.send(probed).is_ok())
    }

    /// A session is over: what was asked over it will not be answered.
    pub fn session_over(&self, agent: AgentUid, session: Epoch) {
        self.state().waiting.retain(|_, one| !(one.agent == agent && one.session == session));
    }

    /// Looks that may be connected to an upstream's host now.
    #[must_use]
    pub fn connected_to(&self, host: &str) -> usize {
        self.state().waiting.values().filter(|one| one.host.as_deref() == Some(host)).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one call that leaves it whole, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// By what the agent's answer is known.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the answer.
    ///
    /// # Errors
    /// [`Unanswered::Gone`] or [`Unanswered::Late`].
    pub async fn findings(self, until: Instant) -> Result<Vec<v1::Finding>, Unanswered> {
        self.probed(until).await.map(|probed| probed.findings)
    }

    /// Waits for the whole answer.
    ///
    /// # Errors
    /// As [`Ticket::findings`].
    pub async fn probed(mut self, until: Instant) -> Result<Probed, Unanswered> {
        match timeout_at(until, &mut self.answer).await {
            Ok(Ok(probed)) => Ok(probed),
            Ok(Err(_)) => Err(Unanswered::Gone),
            Err(_) => Err(Unanswered::Late),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.probes.state().waiting.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FTP1: AgentUid = AgentUid(1);
    const EDGE1: AgentUid = AgentUid(2);

    fn epoch(counter: u64) -> Epoch {
        Epoch { term: 1, counter }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[tokio::test]
    async fn an_answer_reaches_who_waits_and_only_from_the_agent_that_was_asked() {
        let probes = Arc::new(Probes::default());
        let ticket = probes.begin(FTP1, epoch(1), Some("h".to_owned())).unwrap();
        assert_eq!(probes.connected_to("h"), 1);
        let findings = vec![v1::Finding::default()];
        let found = Probed { findings: findings.clone(), command_line: None };
        assert!(!probes.answer(EDGE1, ticket.id(), found.clone()) && !probes.answer(FTP1, 99, found.clone()));
        assert!(probes.answer(FTP1, ticket.id(), found.clone()));
        assert!(!probes.answer(FTP1, ticket.id(), found.clone()), "once");
        assert_eq!(ticket.findings(soon()).await, Ok(findings));
        assert_eq!(probes.connected_to("h"), 0);
    }

    #[tokio::test]
    async fn the_end_of_a_session_a_deadline_and_nobody_waiting_end_a_look() {
        let probes = Arc::new(Probes::default());
        let old = probes.begin(FTP1, epoch(1), None).unwrap();
        let new = probes.begin(FTP1, epoch(2), None).unwrap();
        probes.session_over(FTP1, epoch(1));
        assert_eq!(old.findings(soon()).await, Err(Unanswered::Gone));
        assert_eq!(new.findings(Instant::now()).await, Err(Unanswered::Late));
        drop(probes.begin(FTP1, epoch(2), Some("h".to_owned())).unwrap());
        assert_eq!(probes.connected_to("h"), 0);
        assert!(probes.state().waiting.is_empty());
    }

    #[test]
    fn looks_at_one_agent_are_bounded() {
        let probes = Arc::new(Probes::default());
        let mut held = Vec::new();
        for _ in 0..PROBES_PER_AGENT_MAX {
            held.push(probes.begin(FTP1, epoch(1), None).unwrap());
        }
        assert_eq!(probes.begin(FTP1, epoch(1), None).unwrap_err(), Unanswered::Busy);
        assert!(probes.begin(EDGE1, epoch(1), None).is_ok());
        held.pop();
        assert!(probes.begin(FTP1, epoch(1), None).is_ok());
    }
}
