//! One certificate on two hosts, such as a machine and its copy. Whoever is here and alive stays: before another program of
//! the same identity gets the session, the one that has it is asked for a sign of life. So an agent that was started
//! anew takes over from its dead predecessor, and a copy never takes over from the original, nor do the two throw each
//! other out for ever.
//!
//! This is the one place where it is noticed: in the log, for people in `agent list` and `agent show`, and for whoever
//! records such events. Nothing of it is stored: a copy comes back within minutes. Which of two hosts is the right one is
//! known to people alone.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fleet::{
    id::{AgentUid, Name},
    time::Wall,
};
use tokio::{sync::oneshot, time::timeout};

/// How long the program that has the session may take for a sign of life; a new start of the agent waits for it where the
/// old program died without a word.
pub const SIGN_WAIT_MAX: Duration = Duration::from_secs(3);
/// A copy that has not come back for so long is gone: refused agents come back every five minutes.
pub const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);
/// Agents of which copies are remembered; beyond it they are refused as well, and only logged.
const TWINS_MAX: usize = 1_024;
/// Signs of life that are waited for at once; whoever comes then waits for nothing and takes over, as a new start would.
const WAITING_MAX: usize = 4_096;

/// A second host with an agent's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twin {
    /// From where it dials.
    pub address: IpAddr,
    /// When it was refused first.
    pub since: Wall,
    /// When it was refused last.
    pub last: Wall,
    /// How often.
    pub refusals: u32,
}

/// All of them, and the questions that are open.
#[derive(Debug, Default)]
pub struct Twins(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last_ping: u64,
    waiting: BTreeMap<u64, (AgentUid, oneshot::Sender<()>)>,
    twins: BTreeMap<AgentUid, Twin>,
}

impl Twins {
    /// Whether the program that has this agent's session is alive. `ask` sends it the ping of this id, and says whether
    /// there is a session to send it over.
    pub async fn is_alive(&self, agent: AgentUid, ask: impl FnOnce(u64) -> bool) -> bool {
        self.is_alive_within(SIGN_WAIT_MAX, agent, ask).await
    }

    async fn is_alive_within(&self, wait: Duration, agent: AgentUid, ask: impl FnOnce(u64) -> bool) -> bool {
        let (id, sign) = {
            let mut state = self.state();
            if state.waiting.len() >= WAITING_MAX {
                return false;
            }
            state.last_ping += 1;
            let (sender, sign) = oneshot::channel();
            let id = state.last_ping;
            state.waiting.insert(id, (agent, sender));
            (id, sign)
        };
        let alive = ask(id) && matches!(timeout(wait, sign).await, Ok(Ok(())));
        self.state().waiting.remove(&id);
        alive
    }

    /// A sign of life came. One that nobody waits for, or of another agent, means nothing.
    pub fn sign(&self, agent: AgentUid, id: u64) {
        let mut state = self.state();
        if state.waiting.get(&id).is_some_and(|(asked, _)| *asked == agent)
            && let Some((_, sender)) = state.waiting.remove(&id)
        {
            // Whoever asked may have stopped waiting.
            let _ = sender.send(());
        }
    }

    /// A copy was refused, because the agent is here and alive. Says it in the log; the one place where it is known.
    pub fn refused(&self, agent: AgentUid, name: &Name, here: Option<IpAddr>, copy: IpAddr, now: Wall) {
        let here = here.map_or_else(|| "an address that is not known".to_owned(), |here| here.to_string());
        tracing::warn!(
            target: "audit",
            agent = %name,
            here,
            other = %copy,
            "duplicate identity: a second program with this agent's certificate wants a session; the one that is here stays, \
             the other is refused. Is one host a copy of the other? Next: enrol one of them under another name; if it is \
             not yours, mirrorctl agent revoke"
        );
        let mut state = self.state();
        state.twins.retain(|_, twin| now.since(twin.last) < FORGET_AFTER);
        let room = state.twins.len() < TWINS_MAX;
        let known = state.twins.get_mut(&agent).filter(|twin| twin.address == copy);
        match known {
            Some(twin) => (twin.last, twin.refusals) = (now, twin.refusals.saturating_add(1)),
            None if room => {
                state.twins.insert(agent, Twin { address: copy, since: now, last: now, refusals: 1 });
            }
            None => {}
        }
    }

    /// The copy of this agent that was refused lately.
    #[must_use]
    pub fn of(&self, agent: AgentUid, now: Wall) -> Option<Twin> {
        self.state().twins.get(&agent).copied().filter(|twin| now.since(twin.last) < FORGET_AFTER)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one call that leaves it whole, so a panic elsewhere spoils nothing.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FTP1: AgentUid = AgentUid(1);
    const EDGE1: AgentUid = AgentUid(2);

    #[tokio::test]
    async fn only_the_asked_agents_sign_in_time_is_one() {
        let twins = Twins::default();
        assert!(!twins.is_alive(FTP1, |_| false).await, "no session to ask over");
        let brief = Duration::from_millis(10);
        assert!(!twins.is_alive_within(brief, FTP1, |_| true).await, "silence");
        let anothers = |id| {
            twins.sign(EDGE1, id);
            twins.sign(FTP1, id + 1);
            true
        };
        assert!(!twins.is_alive_within(brief, FTP1, anothers).await, "somebody else's sign");
        let answered = |id| {
            twins.sign(FTP1, id);
            true
        };
        assert!(twins.is_alive(FTP1, answered).await);
        assert!(twins.state().waiting.is_empty());
    }

    #[test]
    fn a_copy_is_shown_while_it_comes_back_and_forgotten_afterwards() {
        let twins = Twins::default();
        let (name, copy): (Name, IpAddr) = ("ftp1".parse().unwrap(), "192.0.2.7".parse().unwrap());
        let minutes = |n: i64| Wall(1_800_000_000_000 + n * 60_000);
        assert_eq!(twins.of(FTP1, minutes(0)), None);
        for n in [0, 4, 9] {
            twins.refused(FTP1, &name, None, copy, minutes(n));
        }
        let twin = twins.of(FTP1, minutes(10)).unwrap();
        assert_eq!((twin.address, twin.since, twin.last, twin.refusals), (copy, minutes(0), minutes(9), 3));
        assert_eq!((twins.of(EDGE1, minutes(10)), twins.of(FTP1, minutes(30))), (None, None));
        twins.refused(FTP1, &name, None, "192.0.2.8".parse().unwrap(), minutes(31));
        assert_eq!(twins.of(FTP1, minutes(31)).unwrap().refusals, 1);
    }
}
