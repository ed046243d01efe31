//! Trees of deleted projects that people want in the trash of their root: what is asked of an agent, what it says, and
//! what is remembered until then. Knows no files.

use crate::{
    id::{AgentUid, Name, ProjectUid},
    project::Destination,
    time::Wall,
};

/// One tree of a deleted project on one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashRecord {
    /// On which agent.
    pub agent: AgentUid,
    /// Of which project, which is no more.
    pub project: ProjectUid,
    /// What the project was called.
    pub name: Name,
    /// Where the tree was.
    pub destination: Destination,
    /// The user who deleted the project.
    pub by: String,
    /// When; with the project it names the order.
    pub asked: Wall,
    /// What became of it.
    pub fate: Fate,
}

/// What became of a tree that is wanted in the trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// Its agent has not said.
    Waiting,
    /// It is in the trash.
    Trashed {
        /// Where it is now: "ROOT:PATH".
        place: String,
        /// When its agent removes it, as that expects.
        until: Wall,
    },
    /// It stays where it is.
    Stays {
        /// Why, for people.
        why: String,
        /// Since when that is known.
        at: Wall,
    },
}

impl TrashRecord {
    /// Whether its agent has still to say what becomes of it.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.fate == Fate::Waiting
    }

    /// What is said to the agent.
    #[must_use]
    pub fn order(&self) -> TrashOrder {
        TrashOrder {
            project: self.project,
            name: self.name.clone(),
            destination: self.destination.clone(),
            asked: self.asked,
        }
    }
}

/// What an agent is to move to the trash. The same one may be said again: it is done once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrashOrder {
    /// Of which project.
    pub project: ProjectUid,
    /// What the project was called.
    pub name: Name,
    /// Where the tree is.
    pub destination: Destination,
    /// When a person asked for it.
    pub asked: Wall,
}

/// All that an agent has in its trash, and what it did not put there.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrashReport {
    /// The whole of it.
    pub trees: Vec<InTrash>,
    /// Orders of this session that it does not follow.
    pub refused: Vec<NotTrashed>,
}

/// One tree in an agent's trash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InTrash {
    /// Of which project.
    pub project: ProjectUid,
    /// The order that it is there by.
    pub asked: Wall,
    /// Where it is: "ROOT:PATH".
    pub place: String,
    /// When the agent expects to remove it.
    pub until: Wall,
}

/// One tree that an agent leaves where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotTrashed {
    /// Of which project.
    pub project: ProjectUid,
    /// Which order.
    pub asked: Wall,
    /// Why, for people.
    pub why: String,
}
