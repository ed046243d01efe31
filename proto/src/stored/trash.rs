//! Trees of deleted projects that are wanted in the trash.

use fleet::{
    time::Wall,
    trash::{Fate, TrashRecord},
};

use super::{Read, agent_uid, destination, name, need, project_uid, wall};
use crate::store::{self, trash_record::Fate as StoredFate};

pub(super) fn record(record: &TrashRecord) -> store::TrashRecord {
    let TrashRecord { agent, project, name, destination, by, asked, fate } = record;
    store::TrashRecord {
        agent_uid: Some(agent.0),
        project_uid: Some(project.0),
        name: Some(name.to_string()),
        destination: Some(destination.to_string()),
        by: Some(by.clone()),
        asked_ms: Some(asked.0),
        fate: match fate {
            Fate::Waiting => None,
            Fate::Trashed { place, until } => Some(StoredFate::Trashed(store::Trashed {
                place: Some(place.clone()),
                until_ms: Some(until.0),
            })),
            Fate::Stays { why, at } => {
                Some(StoredFate::Stays(store::Stays { why: Some(why.clone()), at_ms: Some(at.0) }))
            }
        },
    }
}

pub(super) fn read_record(message: store::TrashRecord) -> Read<TrashRecord> {
    let fate = match message.fate {
        None => Fate::Waiting,
        Some(StoredFate::Trashed(store::Trashed { place, until_ms })) => {
            Fate::Trashed { place: need("place", place)?, until: need("until_ms", until_ms).map(Wall)? }
        }
        Some(StoredFate::Stays(store::Stays { why, at_ms })) => {
            Fate::Stays { why: need("why", why)?, at: need("at_ms", at_ms).map(Wall)? }
        }
    };
    Ok(TrashRecord {
        agent: agent_uid("agent_uid", message.agent_uid)?,
        project: project_uid("project_uid", message.project_uid)?,
        name: name("name", message.name)?,
        destination: destination("destination", message.destination)?,
        by: need("by", message.by)?,
        asked: wall("asked_ms", message.asked_ms)?,
        fate,
    })
}
