//! The engine: all that decides. `decide(&self, now, input)` says what follows from an input; nothing changes
//! until the shell has committed it and calls `apply`. Recovery is `apply` over all stored records.
//!
//! It does no I/O, reads no clock, has no randomness of its own, and never iterates anything unordered, so a
//! run of it is repeatable to the byte: that is what makes the seeded simulator (`tests/sim.rs`) possible.
//!
//! ```text
//!           decide                     apply
//! Input ──▶ people.rs   what users ask ──▶ state.rs   records and what is derived from them
//!           plans.rs    plans over many projects
//!           agents.rs   hello, enrol, renew           usage.rs  slots in use
//!           autonomy.rs what agents do alone
//!           report.rs   accepted, ended               timers.rs what is due when
//!           guard.rs    holds and approvals
//!           due.rs      fires, timers, replicas with work, closing
//!           life.rs     names, archived trees
//!           after.rs    projects that run after others
//!           declared.rs agents as people declare them, and their caps
//!           reseed.rs   a lost tree copied from another placement
//!           replace.rs  one agent in another's place
//!           moves.rs    a tree moved to another place on its agent
//!           fallback.rs which upstream an origin pulls from
//!           trash.rs    trees of deleted projects on their way into the trash
//!           homes.rs    where trees should live, against where they do
//!           explain.rs  what an attempt would be assigned now
//!           exports.rs  who serves which tree to whom
//!           admit.rs    who may start, or what it waits for   hosts.rs  how upstream hosts answer
//! ```

mod admit;
mod after;
mod agents;
mod anew;
mod autonomy;
mod behind;
mod declared;
mod due;
mod effects;
mod explain;
mod exports;
mod fallback;
mod guard;
mod homes;
mod hosts;
mod life;
mod moves;
mod people;
mod plans;
mod promote;
mod pushes;
mod replace;
mod report;
mod requests;
mod reseed;
mod state;
mod timers;
mod trash;
mod upstreams;
mod usage;
mod users;
mod view;
mod volatile;

pub use admit::{BLOCKERS_MAX, Blocker, Wait, WaitReason};
pub use agents::HELLO_ATTEMPTS_MAX;
pub use anew::ANEW_AT_ONCE;
pub use autonomy::GAVE_WAY;
pub use explain::Explained;
pub use homes::{Obstacle, REPLICAS_MAX};
pub use hosts::{Breaker, HostFailure, HostState};
pub use people::{SWEEP_MAX, at_its_phase};
pub use pushes::PUSHED_TOO_OFTEN;
pub use state::{Engine, Project};
pub use timers::Timer;
pub use upstreams::UpstreamView;
pub use view::Why;

use crate::{
    id::Epoch,
    input::{AgentInput, Decision, Input},
    record::{Change, FleetRecord, Record},
    time::Now,
};

/// Most records that one decision changes: a project with [`REPLICAS_MAX`] replicas that is cancelled or deleted
/// changes an attempt and a placement of each, and wants each tree in the trash. Only the revocation of an agent may
/// change more, some records for each of its projects; and the recording of a plan, or its end by a restore, a record for
/// each of its steps.
pub const CHANGES_MAX: usize = 640;

impl Engine {
    /// What follows from `input` at `now`. Changes nothing.
    #[must_use]
    pub fn decide(&self, now: Now, input: Input) -> Decision {
        match input {
            Input::Tick => self.tick(now),
            Input::Start { at_least } => self.start(at_least),
            Input::Sweep => self.sweep(now),
            Input::Person(person) => self.person(now, person),
            Input::Agent(input) => match input {
                AgentInput::Enroll { .. } => self.enroll(now, input),
                AgentInput::Renew { agent, key_hash, serial, expires } => {
                    self.renew(agent, &key_hash, serial, expires)
                }
                AgentInput::Hello { agent, state_id, highest_term, connection, facts, attempts } => {
                    self.hello(now, agent, &state_id, highest_term, connection, facts, &attempts)
                }
                AgentInput::Gone { agent, session } => self.gone(now, agent, session),
                AgentInput::Accepted { agent, attempt, epoch } => self.accepted(now, agent, attempt, epoch),
                AgentInput::Refused { agent, attempt, epoch, why, detail } => {
                    self.refused(now, agent, attempt, epoch, why, &detail)
                }
                AgentInput::Ended { agent, attempt, epoch, outcome } => {
                    self.ended(now, agent, attempt, epoch, outcome)
                }
                AgentInput::EndedAlone { agent, held, outcome } => {
                    self.ended_alone(now, agent, &held, outcome)
                }
                AgentInput::Trash { agent, session, report } => self.trash_told(now, agent, session, &report),
                AgentInput::Inventory { agent, session, roots } => self.inventory(agent, session, roots),
                AgentInput::Exporting { agent, session, serial, serve_uri, fault, not_served } => {
                    self.exporting(agent, session, serial, serve_uri, fault, not_served)
                }
            },
        }
    }

    /// A coordinator starts: everything it says from now on carries a higher term than ever before. After a
    /// restore the same goes for uids: those given since the backup was made must not be given again.
    fn start(&self, at_least: u64) -> Decision {
        let next_term = self.fleet().term + 1;
        let term = next_term.max(at_least);
        let next_uid =
            if at_least > next_term { self.fleet().next_uid.max(at_least) } else { self.fleet().next_uid };
        let fleet = FleetRecord { term, next_uid, ..self.fleet().clone() };
        let mut changes = vec![Change::Put(Record::Fleet(fleet))];
        if at_least > next_term {
            // Who puts an older state back wants that one, and may do so because of this very plan.
            changes.extend(self.plan_dropped());
        }
        Decision { changes, ..Decision::nothing() }
    }

    /// The token that the next offer or session gets.
    fn next_epoch(&self) -> Epoch {
        Epoch { term: self.fleet().term, counter: self.last_counter() + 1 }
    }
}
