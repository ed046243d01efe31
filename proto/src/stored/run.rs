//! Runs, attempts and their ends.

use fleet::{
    attempt::{AttemptRecord, AttemptState, End},
    id::AgentUid,
    marker::MarkerSeen,
    outcome::{Evidence, Outcome, Stats},
    run::{Missed, Move, RunRecord, Trigger, Wish},
    time::Wall,
};

use super::{
    At as _, Read, agent_uid, attempt_id, choice, destination, epoch, list, maybe, nanos, need, part,
    project::{read_marker, write_marker},
    project_uid, read_attempt_id, read_epoch, run_bytes, run_id, wall,
};
use crate::{
    convert::enums::stored,
    store::{self, attempt_record::State, ended::End as StoredEnd},
};

pub(super) fn record(record: &RunRecord) -> store::RunRecord {
    let RunRecord {
        id,
        project,
        trigger: Trigger { kind, by, time, autonomous },
        coalesced,
        by_person,
        generation,
        state,
        attempts,
        origin_attempt,
        replica_failed,
        missed,
        create_time,
        start_time,
        propagate_time,
        end_time,
        current_tree,
        traceparent,
        wish,
    } = record;
    let missed = missed.iter().map(|Missed { agent, caught_up }| store::Missed {
        agent: Some(agent.0),
        caught_up_ms: caught_up.map(|time| time.0),
    });
    store::RunRecord {
        id: Some(run_bytes(*id)),
        project: Some(project.0),
        trigger: Some(store::Trigger {
            kind: Some(stored::trigger_kind::number(*kind)),
            by: Some(by.clone()),
            time_ms: Some(time.0),
            autonomous: autonomous.then_some(true),
        }),
        coalesced: Some(*coalesced),
        by_person: Some(*by_person),
        generation: Some(*generation),
        state: Some(stored::run_state::number(*state)),
        attempts: Some(*attempts),
        origin_attempt: Some(*origin_attempt),
        replica_failed: Some(*replica_failed),
        missed: missed.collect(),
        create_time_ms: Some(create_time.0),
        start_time_ms: start_time.map(|time| time.0),
        propagate_time_ms: propagate_time.map(|time| time.0),
        end_time_ms: end_time.map(|time| time.0),
        current_tree: Some(*current_tree),
        traceparent: Some(traceparent.clone()),
        wish: (*wish != Wish::default()).then(|| write_wish(wish)),
    }
}

pub(super) fn read_record(message: store::RunRecord) -> Read<RunRecord> {
    let trigger = |trigger: store::Trigger| {
        Ok(Trigger {
            kind: choice("kind", trigger.kind, stored::trigger_kind::read)?,
            by: need("by", trigger.by)?,
            time: wall("time_ms", trigger.time_ms)?,
            autonomous: trigger.autonomous.unwrap_or(false),
        })
    };
    let missed = |missed: store::Missed| {
        Ok(Missed { agent: agent_uid("agent", missed.agent)?, caught_up: missed.caught_up_ms.map(Wall) })
    };
    Ok(RunRecord {
        id: run_id("id", message.id)?,
        project: project_uid("project", message.project)?,
        trigger: part("trigger", message.trigger, trigger)?,
        coalesced: need("coalesced", message.coalesced)?,
        by_person: need("by_person", message.by_person)?,
        generation: need("generation", message.generation)?,
        state: choice("state", message.state, stored::run_state::read)?,
        attempts: need("attempts", message.attempts)?,
        origin_attempt: need("origin_attempt", message.origin_attempt)?,
        replica_failed: need("replica_failed", message.replica_failed)?,
        missed: list("missed", message.missed, missed)?,
        create_time: wall("create_time_ms", message.create_time_ms)?,
        start_time: message.start_time_ms.map(Wall),
        propagate_time: message.propagate_time_ms.map(Wall),
        end_time: message.end_time_ms.map(Wall),
        current_tree: need("current_tree", message.current_tree)?,
        traceparent: need("traceparent", message.traceparent)?,
        wish: maybe("wish", message.wish, read_wish)?.unwrap_or_default(),
    })
}

fn write_wish(wish: &Wish) -> store::Wish {
    let Wish { dry_run, reclaim, allow_deletes, waived, waiver_expires, reseed_from, moves } = wish;
    store::Wish {
        dry_run: Some(*dry_run),
        reclaim: Some(*reclaim),
        allow_deletes: *allow_deletes,
        waived: waived.iter().map(|kind| stored::guard_kind::number(*kind)).collect(),
        waiver_expires_ms: waiver_expires.map(|time| time.0),
        reseed_from: reseed_from.map(|agent| agent.0),
        moves: moves
            .as_ref()
            .map(|way| store::Move { from: Some(way.from.to_string()), to: Some(way.to.to_string()) }),
    }
}

fn read_wish(message: store::Wish) -> Read<Wish> {
    Ok(Wish {
        dry_run: need("dry_run", message.dry_run)?,
        reclaim: need("reclaim", message.reclaim)?,
        allow_deletes: message.allow_deletes,
        waived: list("waived", message.waived, |kind| choice("kind", Some(kind), stored::guard_kind::read))?,
        waiver_expires: message.waiver_expires_ms.map(Wall),
        reseed_from: message.reseed_from.map(AgentUid),
        moves: maybe("moves", message.moves, |way| {
            Ok(Move { from: destination("from", way.from)?, to: destination("to", way.to)? })
        })?,
    })
}

pub(super) fn write_evidence(evidence: &Evidence) -> store::Evidence {
    let Evidence { kind, wanted, allowed, names, sentence } = evidence;
    store::Evidence {
        kind: Some(stored::guard_kind::number(*kind)),
        wanted: Some(*wanted),
        allowed: Some(*allowed),
        names: names.clone(),
        sentence: Some(sentence.clone()),
    }
}

pub(super) fn read_evidence(message: store::Evidence) -> Read<Evidence> {
    Ok(Evidence {
        kind: choice("kind", message.kind, stored::guard_kind::read)?,
        wanted: need("wanted", message.wanted)?,
        allowed: need("allowed", message.allowed)?,
        names: message.names,
        sentence: need("sentence", message.sentence)?,
    })
}

/// Absent stands for empty.
fn written(text: &str) -> Option<String> {
    Some(text.to_owned()).filter(|text| !text.is_empty())
}

pub(super) fn attempt(record: &AttemptRecord) -> store::AttemptRecord {
    let AttemptRecord {
        id,
        project,
        agent,
        role,
        destination,
        upstream_host,
        upstream_uri,
        fell_back,
        tree,
        attempt_try,
        first_sync,
        mixed,
        max_delete,
        source,
        spec_hash,
        state,
    } = record;
    store::AttemptRecord {
        id: Some(attempt_id(*id)),
        project: Some(project.0),
        agent: Some(agent.0),
        role: Some(stored::role::number(*role)),
        destination: Some(destination.to_string()),
        upstream_host: Some(upstream_host.clone()),
        upstream_uri: written(upstream_uri),
        fell_back: written(fell_back),
        tree: Some(run_bytes(*tree)),
        attempt_try: Some(*attempt_try),
        first_sync: Some(*first_sync),
        mixed: Some(*mixed),
        max_delete: Some(*max_delete),
        source: source.map(|agent| agent.0),
        spec_hash: Some(spec_hash.clone()),
        state: Some(write_state(state)),
    }
}

pub(super) fn read_attempt(message: store::AttemptRecord) -> Read<AttemptRecord> {
    Ok(AttemptRecord {
        id: part("id", message.id, read_attempt_id)?,
        project: project_uid("project", message.project)?,
        agent: agent_uid("agent", message.agent)?,
        role: choice("role", message.role, stored::role::read)?,
        destination: destination("destination", message.destination)?,
        upstream_host: need("upstream_host", message.upstream_host)?,
        upstream_uri: message.upstream_uri.unwrap_or_default(),
        fell_back: message.fell_back.unwrap_or_default(),
        tree: run_id("tree", message.tree)?,
        attempt_try: need("attempt_try", message.attempt_try)?,
        first_sync: need("first_sync", message.first_sync)?,
        mixed: need("mixed", message.mixed)?,
        max_delete: need("max_delete", message.max_delete)?,
        source: message.source.map(AgentUid),
        spec_hash: need("spec_hash", message.spec_hash)?,
        state: part("state", message.state, read_state)?,
    })
}

fn write_state(state: &AttemptState) -> State {
    match state {
        AttemptState::Pending { delay } => State::Pending(store::Pending { delay_ns: Some(nanos(*delay)) }),
        AttemptState::Offered { epoch: token, at } => {
            State::Offered(store::Offered { epoch: Some(epoch(*token)), at_ms: Some(at.0) })
        }
        AttemptState::Running { epoch: token, offered, started } => State::Running(store::Running {
            epoch: Some(epoch(*token)),
            offered_ms: Some(offered.0),
            started_ms: Some(started.0),
        }),
        AttemptState::Cancelling { epoch: token, offered, started } => State::Cancelling(store::Cancelling {
            epoch: Some(epoch(*token)),
            offered_ms: Some(offered.0),
            started_ms: started.map(|time| time.0),
        }),
        AttemptState::Ended { epoch: token, offered, started, at, end } => State::Ended(store::Ended {
            epoch: Some(epoch(*token)),
            offered_ms: offered.map(|time| time.0),
            started_ms: started.map(|time| time.0),
            at_ms: Some(at.0),
            end: Some(match end {
                End::Succeeded(outcome) => StoredEnd::Succeeded(write_outcome(outcome)),
                End::Failed(outcome) => StoredEnd::Failed(write_outcome(outcome)),
                End::Held(outcome) => StoredEnd::Held(write_outcome(outcome)),
                End::Cancelled(outcome) => {
                    StoredEnd::Cancelled(store::Cancelled { outcome: outcome.as_ref().map(write_outcome) })
                }
                End::Lost => StoredEnd::Lost(store::Lost {}),
            }),
        }),
    }
}

fn read_state(message: State) -> Read<AttemptState> {
    match message {
        State::Pending(pending) => {
            let delay = need("delay_ns", pending.delay_ns).at("pending")?;
            Ok(AttemptState::Pending { delay: std::time::Duration::from_nanos(delay) })
        }
        State::Offered(offered) => read_offered(offered).at("offered"),
        State::Running(running) => read_running(running).at("running"),
        State::Cancelling(cancelling) => read_cancelling(cancelling).at("cancelling"),
        State::Ended(ended) => read_ended(ended).at("ended"),
    }
}

fn read_offered(message: store::Offered) -> Read<AttemptState> {
    Ok(AttemptState::Offered {
        epoch: part("epoch", message.epoch, read_epoch)?,
        at: wall("at_ms", message.at_ms)?,
    })
}

fn read_running(message: store::Running) -> Read<AttemptState> {
    Ok(AttemptState::Running {
        epoch: part("epoch", message.epoch, read_epoch)?,
        offered: wall("offered_ms", message.offered_ms)?,
        started: wall("started_ms", message.started_ms)?,
    })
}

fn read_cancelling(message: store::Cancelling) -> Read<AttemptState> {
    Ok(AttemptState::Cancelling {
        epoch: part("epoch", message.epoch, read_epoch)?,
        offered: wall("offered_ms", message.offered_ms)?,
        started: message.started_ms.map(Wall),
    })
}

fn read_ended(message: store::Ended) -> Read<AttemptState> {
    let end = |end| {
        Ok(match end {
            StoredEnd::Succeeded(outcome) => End::Succeeded(read_outcome(outcome).at("succeeded")?),
            StoredEnd::Failed(outcome) => End::Failed(read_outcome(outcome).at("failed")?),
            StoredEnd::Held(outcome) => End::Held(read_outcome(outcome).at("held")?),
            StoredEnd::Cancelled(cancelled) => {
                End::Cancelled(maybe("outcome", cancelled.outcome, read_outcome).at("cancelled")?)
            }
            StoredEnd::Lost(store::Lost {}) => End::Lost,
        })
    };
    Ok(AttemptState::Ended {
        epoch: part("epoch", message.epoch, read_epoch)?,
        offered: message.offered_ms.map(Wall),
        started: message.started_ms.map(Wall),
        at: wall("at_ms", message.at_ms)?,
        end: part("end", message.end, end)?,
    })
}

fn write_outcome(outcome: &Outcome) -> store::Outcome {
    let Outcome {
        class,
        exit_code,
        signal,
        cause,
        fault,
        advice,
        stats,
        deletes_skipped,
        evidence,
        marker,
        time,
    } = outcome;
    store::Outcome {
        class: Some(stored::exit_class::number(*class)),
        exit_code: *exit_code,
        signal: *signal,
        cause: Some(cause.clone()),
        fault: Some(fault.clone()),
        advice: Some(advice.clone()),
        stats: stats.as_ref().map(write_stats),
        deletes_skipped: *deletes_skipped,
        evidence: evidence.as_ref().map(write_evidence),
        marker: marker.as_deref().map(write_seen),
        time_ms: Some(time.0),
    }
}

fn read_outcome(message: store::Outcome) -> Read<Outcome> {
    Ok(Outcome {
        class: choice("class", message.class, stored::exit_class::read)?,
        exit_code: message.exit_code,
        signal: message.signal,
        cause: need("cause", message.cause)?,
        fault: need("fault", message.fault)?,
        advice: need("advice", message.advice)?,
        stats: maybe("stats", message.stats, read_stats)?,
        deletes_skipped: message.deletes_skipped,
        evidence: maybe("evidence", message.evidence, read_evidence)?,
        marker: maybe("marker", message.marker, read_seen)?.map(Box::new),
        time: wall("time_ms", message.time_ms)?,
    })
}

fn write_seen(seen: &MarkerSeen) -> store::MarkerSeen {
    let MarkerSeen { marker, upstream, tree, note } = seen;
    store::MarkerSeen {
        marker: Some(write_marker(marker)),
        upstream_ms: upstream.map(|time| time.0),
        tree_ms: tree.map(|time| time.0),
        note: written(note),
    }
}

fn read_seen(message: store::MarkerSeen) -> Read<MarkerSeen> {
    Ok(MarkerSeen {
        marker: part("marker", message.marker, read_marker)?,
        upstream: message.upstream_ms.map(Wall),
        tree: message.tree_ms.map(Wall),
        note: message.note.unwrap_or_default(),
    })
}

fn write_stats(stats: &Stats) -> store::Stats {
    let Stats {
        files,
        created,
        deleted,
        transferred,
        total_bytes,
        transferred_bytes,
        received_bytes,
        sent_bytes,
    } = *stats;
    store::Stats {
        files: Some(files),
        created: Some(created),
        deleted: Some(deleted),
        transferred: Some(transferred),
        total_bytes: Some(total_bytes),
        transferred_bytes: Some(transferred_bytes),
        received_bytes: Some(received_bytes),
        sent_bytes: Some(sent_bytes),
    }
}

fn read_stats(message: store::Stats) -> Read<Stats> {
    Ok(Stats {
        files: need("files", message.files)?,
        created: need("created", message.created)?,
        deleted: need("deleted", message.deleted)?,
        transferred: need("transferred", message.transferred)?,
        total_bytes: need("total_bytes", message.total_bytes)?,
        transferred_bytes: need("transferred_bytes", message.transferred_bytes)?,
        received_bytes: need("received_bytes", message.received_bytes)?,
        sent_bytes: need("sent_bytes", message.sent_bytes)?,
    })
}
