//! The fleet's own record, placements, agents, join tokens, users and remembered answers.

use fleet::{
    agent::{
        AgentCaps, AgentRecord, JoinToken, LastKnown, PasswordHash, PushToken, Root, TokenNames, UserRecord,
        UserToken,
    },
    placement::{Behind, Hold, PlacementRecord},
    record::{Answer, FleetRecord, Freeze, RequestRecord},
    time::Wall,
    upstream::UpstreamRecord,
};

use super::{
    Bad, Read, agent_uid, attempt_id, choice, destination, list, maybe, maybe_destination, maybe_run_id,
    name, nanos, need, part, plan, project_uid, read_attempt_id,
    run::{read_evidence, write_evidence},
    run_bytes, run_id, span, wall,
};
use crate::{
    convert::enums::stored,
    store::{self, join_token::Names, request_record::Answer as StoredAnswer},
};

pub(super) fn fleet(record: &FleetRecord) -> store::FleetRecord {
    let FleetRecord { term, next_uid, frozen, forgotten_plan } = record;
    store::FleetRecord {
        term: Some(*term),
        next_uid: Some(*next_uid),
        frozen: frozen.as_ref().map(|Freeze { by, time, reason }| store::Freeze {
            by: Some(by.clone()),
            time_ms: Some(time.0),
            reason: Some(reason.clone()),
        }),
        forgotten_plan: *forgotten_plan,
    }
}

pub(super) fn read_fleet(message: store::FleetRecord) -> Read<FleetRecord> {
    let freeze = |freeze: store::Freeze| {
        Ok(Freeze {
            by: need("by", freeze.by)?,
            time: wall("time_ms", freeze.time_ms)?,
            reason: need("reason", freeze.reason)?,
        })
    };
    Ok(FleetRecord {
        term: need("term", message.term)?,
        next_uid: need("next_uid", message.next_uid)?,
        frozen: maybe("frozen", message.frozen, freeze)?,
        forgotten_plan: message.forgotten_plan,
    })
}

pub(super) fn placement(record: &PlacementRecord) -> store::PlacementRecord {
    let PlacementRecord {
        project,
        agent,
        role,
        standby,
        destination,
        have_tree,
        have_time,
        gave_up_on,
        files,
        size_bytes,
        half_changed,
        half_moved,
        hold,
        marker,
        behind,
    } = record;
    store::PlacementRecord {
        project: Some(project.0),
        agent: Some(agent.0),
        role: Some(stored::role::number(*role)),
        destination: Some(destination.to_string()),
        have_tree: have_tree.map(run_bytes),
        have_time_ms: have_time.map(|time| time.0),
        gave_up_on: gave_up_on.map(run_bytes),
        files: Some(*files),
        size_bytes: Some(*size_bytes),
        hold: hold.as_ref().map(write_hold),
        standby: standby.then_some(true),
        half_changed: half_changed.then_some(true),
        marker_ms: marker.map(|time| time.0),
        behind: behind.map(|Behind { since, newest, runs }| store::Behind {
            since_ms: Some(since.0),
            newest: Some(run_bytes(newest)),
            runs: Some(runs),
        }),
        half_moved: half_moved.as_ref().map(ToString::to_string),
    }
}

fn write_hold(hold: &Hold) -> store::Hold {
    let Hold { first, newest, since, evidence, met, approved_until } = hold;
    store::Hold {
        first: Some(attempt_id(*first)),
        newest: Some(attempt_id(*newest)),
        since_ms: Some(since.0),
        evidence: Some(write_evidence(evidence)),
        met: met.iter().map(|kind| stored::guard_kind::number(*kind)).collect(),
        approved_until_ms: approved_until.map(|time| time.0),
    }
}

fn read_hold(hold: store::Hold) -> Read<Hold> {
    Ok(Hold {
        first: part("first", hold.first, read_attempt_id)?,
        newest: part("newest", hold.newest, read_attempt_id)?,
        since: wall("since_ms", hold.since_ms)?,
        evidence: part("evidence", hold.evidence, read_evidence)?,
        met: list("met", hold.met, |kind| choice("kind", Some(kind), stored::guard_kind::read))?,
        approved_until: hold.approved_until_ms.map(Wall),
    })
}

pub(super) fn read_placement(message: store::PlacementRecord) -> Read<PlacementRecord> {
    Ok(PlacementRecord {
        project: project_uid("project", message.project)?,
        agent: agent_uid("agent", message.agent)?,
        role: choice("role", message.role, stored::role::read)?,
        destination: destination("destination", message.destination)?,
        have_tree: maybe_run_id("have_tree", message.have_tree)?,
        have_time: message.have_time_ms.map(Wall),
        gave_up_on: maybe_run_id("gave_up_on", message.gave_up_on)?,
        files: need("files", message.files)?,
        size_bytes: need("size_bytes", message.size_bytes)?,
        hold: maybe("hold", message.hold, read_hold)?,
        standby: message.standby.unwrap_or(false),
        half_changed: message.half_changed.unwrap_or(false),
        marker: message.marker_ms.map(Wall),
        behind: maybe("behind", message.behind, read_behind)?,
        half_moved: maybe_destination("half_moved", message.half_moved)?,
    })
}

fn read_behind(behind: store::Behind) -> Read<Behind> {
    Ok(Behind {
        since: wall("since_ms", behind.since_ms)?,
        newest: run_id("newest", behind.newest)?,
        runs: need("runs", behind.runs)?,
    })
}

pub(super) fn agent(record: &AgentRecord) -> store::AgentRecord {
    let AgentRecord {
        uid,
        name,
        labels,
        caps: AgentCaps { max_running, max_serving, bandwidth_limit_kib },
        draining,
        revoked,
        key_hash,
        certificate_serial,
        certificate_expires,
        state_id,
        last_seen,
        last_known,
        revision,
        create_time,
    } = record;
    store::AgentRecord {
        uid: Some(uid.0),
        name: Some(name.to_string()),
        labels: labels.clone(),
        draining: Some(*draining),
        revoked: revoked.clone(),
        key_hash: Some(key_hash.clone()),
        certificate_serial: Some(certificate_serial.clone()),
        certificate_expires_ms: Some(certificate_expires.0),
        state_id: Some(state_id.clone()),
        last_seen_ms: last_seen.map(|time| time.0),
        revision: Some(*revision),
        create_time_ms: Some(create_time.0),
        max_running: *max_running,
        max_serving: *max_serving,
        bandwidth_limit_kib: *bandwidth_limit_kib,
        last_known: Some(last_known).filter(|known| **known != LastKnown::default()).map(write_last_known),
    }
}

fn write_last_known(known: &LastKnown) -> store::LastKnown {
    let LastKnown { version, rsync_version, roots } = known;
    let root = |root: &Root| {
        let Root { name, path, total_bytes, free_bytes, total_inodes, free_inodes } = root;
        store::KnownRoot {
            name: Some(name.clone()),
            path: Some(path.clone()),
            total_bytes: Some(*total_bytes),
            free_bytes: Some(*free_bytes),
            total_inodes: Some(*total_inodes),
            free_inodes: Some(*free_inodes),
        }
    };
    store::LastKnown {
        version: Some(version.clone()),
        rsync_version: Some(rsync_version.clone()),
        roots: roots.iter().map(root).collect(),
    }
}

fn read_last_known(known: store::LastKnown) -> Read<LastKnown> {
    let root = |root: store::KnownRoot| {
        Ok(Root {
            name: need("name", root.name)?,
            path: need("path", root.path)?,
            total_bytes: need("total_bytes", root.total_bytes)?,
            free_bytes: need("free_bytes", root.free_bytes)?,
            total_inodes: need("total_inodes", root.total_inodes)?,
            free_inodes: need("free_inodes", root.free_inodes)?,
        })
    };
    Ok(LastKnown {
        version: need("version", known.version)?,
        rsync_version: need("rsync_version", known.rsync_version)?,
        roots: list("roots", known.roots, root)?,
    })
}

pub(super) fn read_agent(message: store::AgentRecord) -> Read<AgentRecord> {
    Ok(AgentRecord {
        uid: agent_uid("uid", message.uid)?,
        name: name("name", message.name)?,
        labels: message.labels,
        caps: AgentCaps {
            max_running: message.max_running,
            max_serving: message.max_serving,
            bandwidth_limit_kib: message.bandwidth_limit_kib,
        },
        draining: need("draining", message.draining)?,
        revoked: message.revoked,
        key_hash: need("key_hash", message.key_hash)?,
        certificate_serial: need("certificate_serial", message.certificate_serial)?,
        certificate_expires: wall("certificate_expires_ms", message.certificate_expires_ms)?,
        state_id: need("state_id", message.state_id)?,
        last_seen: message.last_seen_ms.map(Wall),
        last_known: maybe("last_known", message.last_known, read_last_known)?.unwrap_or_default(),
        revision: need("revision", message.revision)?,
        create_time: wall("create_time_ms", message.create_time_ms)?,
    })
}

pub(super) fn upstream(record: &UpstreamRecord) -> store::UpstreamRecord {
    let UpstreamRecord { host, slots, spacing, revision, create_time, update_time } = record;
    store::UpstreamRecord {
        host: Some(host.clone()),
        slots: *slots,
        spacing_ns: spacing.map(nanos),
        revision: Some(*revision),
        create_time_ms: Some(create_time.0),
        update_time_ms: Some(update_time.0),
    }
}

pub(super) fn read_upstream(message: store::UpstreamRecord) -> Read<UpstreamRecord> {
    Ok(UpstreamRecord {
        host: need("host", message.host)?,
        slots: message.slots,
        spacing: span(message.spacing_ns),
        revision: need("revision", message.revision)?,
        create_time: wall("create_time_ms", message.create_time_ms)?,
        update_time: wall("update_time_ms", message.update_time_ms)?,
    })
}

pub(super) fn join_token(record: &JoinToken) -> store::JoinToken {
    let JoinToken { id, hash, names, networks, uses_left, expires, by } = record;
    store::JoinToken {
        id: Some(id.clone()),
        hash: Some(hash.clone()),
        names: Some(match names {
            TokenNames::One(name) => Names::One(name.to_string()),
            TokenNames::Pattern(pattern) => Names::Pattern(pattern.clone()),
        }),
        networks: networks.iter().map(ToString::to_string).collect(),
        uses_left: Some(*uses_left),
        expires_ms: Some(expires.0),
        by: Some(by.clone()),
    }
}

pub(super) fn read_join_token(message: store::JoinToken) -> Read<JoinToken> {
    let names = match need("names", message.names)? {
        Names::One(one) => TokenNames::One(name("one", Some(one))?),
        Names::Pattern(pattern) => TokenNames::Pattern(pattern),
    };
    Ok(JoinToken {
        id: need("id", message.id)?,
        hash: need("hash", message.hash)?,
        names,
        networks: list("networks", message.networks, |text| {
            text.parse().map_err(|_| Bad::new("networks", format!("{text:?} is no network")))
        })?,
        uses_left: need("uses_left", message.uses_left)?,
        expires: wall("expires_ms", message.expires_ms)?,
        by: need("by", message.by)?,
    })
}

pub(super) fn user(record: &UserRecord) -> store::UserRecord {
    let UserRecord { name, role, disabled, password, certificates_since, revision, create_time, update_time } =
        record;
    store::UserRecord {
        name: Some(name.to_string()),
        role: Some(stored::user_role::number(*role)),
        disabled: disabled.then_some(true),
        password_hash: password.as_ref().map(|PasswordHash(hash)| hash.clone()),
        certificates_since_ms: Some(certificates_since.0).filter(|ms| *ms != 0),
        revision: Some(*revision).filter(|revision| *revision != 0),
        create_time_ms: Some(create_time.0).filter(|ms| *ms != 0),
        update_time_ms: Some(update_time.0).filter(|ms| *ms != 0),
    }
}

pub(super) fn read_user(message: store::UserRecord) -> Read<UserRecord> {
    Ok(UserRecord {
        name: name("name", message.name)?,
        role: choice("role", message.role, stored::user_role::read)?,
        disabled: message.disabled.unwrap_or(false),
        password: message.password_hash.map(PasswordHash),
        certificates_since: Wall(message.certificates_since_ms.unwrap_or(0)),
        revision: message.revision.unwrap_or(0),
        create_time: Wall(message.create_time_ms.unwrap_or(0)),
        update_time: Wall(message.update_time_ms.unwrap_or(0)),
    })
}

pub(super) fn user_token(record: &UserToken) -> store::UserToken {
    let UserToken { id, user, hash, create_time, expires, from } = record;
    store::UserToken {
        id: Some(id.clone()),
        user: Some(user.to_string()),
        hash: Some(hash.clone()),
        create_time_ms: Some(create_time.0),
        expires_ms: Some(expires.0),
        from: Some(from.clone()),
    }
}

pub(super) fn read_user_token(message: store::UserToken) -> Read<UserToken> {
    Ok(UserToken {
        id: need("id", message.id)?,
        user: name("user", message.user)?,
        hash: need("hash", message.hash)?,
        create_time: wall("create_time_ms", message.create_time_ms)?,
        expires: wall("expires_ms", message.expires_ms)?,
        from: need("from", message.from)?,
    })
}

pub(super) fn push_token(record: &PushToken) -> store::PushToken {
    let PushToken { id, project, hash, note, create_time, expires, by, last_used } = record;
    store::PushToken {
        id: Some(id.clone()),
        project_uid: Some(project.0),
        hash: Some(hash.clone()),
        note: Some(note.clone()).filter(|note| !note.is_empty()),
        create_time_ms: Some(create_time.0),
        expires_ms: expires.map(|expires| expires.0),
        by: Some(by.clone()),
        last_used_ms: last_used.map(|used| used.0),
    }
}

pub(super) fn read_push_token(message: store::PushToken) -> Read<PushToken> {
    Ok(PushToken {
        id: need("id", message.id)?,
        project: project_uid("project_uid", message.project_uid)?,
        hash: need("hash", message.hash)?,
        note: message.note.unwrap_or_default(),
        create_time: wall("create_time_ms", message.create_time_ms)?,
        expires: message.expires_ms.map(Wall),
        by: need("by", message.by)?,
        last_used: message.last_used_ms.map(Wall),
    })
}

pub(super) fn request(record: &RequestRecord) -> store::RequestRecord {
    let RequestRecord { key, payload, answer, expires } = record;
    store::RequestRecord {
        key: Some(key.clone()),
        payload: Some(payload.clone()),
        answer: Some(match answer {
            Answer::Project(project) => StoredAnswer::Project(project.0),
            Answer::Agent(agent) => StoredAnswer::Agent(agent.0),
            Answer::PushToken(id) => StoredAnswer::PushToken(id.clone()),
            Answer::Run { project, run, coalesced } => StoredAnswer::Run(store::RunAnswer {
                project: Some(project.0),
                run: Some(run_bytes(*run)),
                coalesced: Some(*coalesced),
            }),
            Answer::Plan { plan: id, counts } => StoredAnswer::Plan(plan::answer(*id, *counts)),
        }),
        expires_ms: Some(expires.0),
    }
}

pub(super) fn read_request(message: store::RequestRecord) -> Read<RequestRecord> {
    let answer = |answer| {
        Ok(match answer {
            StoredAnswer::Project(uid) => Answer::Project(fleet::id::ProjectUid(uid)),
            StoredAnswer::Agent(uid) => Answer::Agent(fleet::id::AgentUid(uid)),
            StoredAnswer::PushToken(id) => Answer::PushToken(id),
            StoredAnswer::Run(run) => Answer::Run {
                project: project_uid("project", run.project)?,
                run: run_id("run", run.run)?,
                coalesced: need("coalesced", run.coalesced)?,
            },
            StoredAnswer::Plan(answer) => {
                let (plan, counts) = plan::read_answer(answer)?;
                Answer::Plan { plan, counts }
            }
        })
    };
    Ok(RequestRecord {
        key: need("key", message.key)?,
        payload: need("payload", message.payload)?,
        answer: part("answer", message.answer, answer)?,
        expires: wall("expires_ms", message.expires_ms)?,
    })
}
