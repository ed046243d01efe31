//! Runs in every state, attempts in every state and with every end.

use fleet::{
    attempt::{AttemptRecord, AttemptState, End},
    id::AgentUid,
    marker::{Marker, MarkerKind, MarkerSeen},
    outcome::{Evidence, ExitClass, GuardKind, Outcome, Stats},
    run::{Missed, Move, RunRecord, RunState, Trigger, TriggerKind, Wish},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{
    agent_uid, attempt_id, destination, epoch, maybe_wall, project_uid, role, run_id, span, text, wall,
};

pub(crate) fn run_state() -> impl Strategy<Value = RunState> {
    prop_oneof![
        Just(RunState::Queued),
        Just(RunState::Running),
        Just(RunState::Propagating),
        Just(RunState::Succeeded),
        Just(RunState::Failed),
        Just(RunState::Held),
        Just(RunState::Cancelled),
    ]
}

fn trigger() -> impl Strategy<Value = Trigger> {
    let kind = prop_oneof![
        Just(TriggerKind::Schedule),
        Just(TriggerKind::User),
        Just(TriggerKind::Push),
        Just(TriggerKind::UpstreamChange),
        Just(TriggerKind::Project),
    ];
    (kind, text(), wall(), any::<bool>()).prop_map(|(kind, by, time, autonomous)| Trigger {
        kind,
        by,
        time,
        autonomous,
    })
}

pub(crate) fn run() -> impl Strategy<Value = RunRecord> {
    let missed = (agent_uid(), maybe_wall()).prop_map(|(agent, caught_up)| Missed { agent, caught_up });
    let counts = any::<(u64, u64, u32, u32)>();
    let flags = any::<(bool, bool, bool)>();
    let times = (wall(), maybe_wall(), maybe_wall(), maybe_wall());
    let who = (run_id(), project_uid(), trigger(), run_state());
    let moves = option::of((destination(), destination()).prop_map(|(from, to)| Move { from, to }));
    let wish = (any::<(bool, bool, Option<u64>, Option<u64>)>(), kinds(), maybe_wall(), moves).prop_map(
        |((dry_run, reclaim, allow_deletes, donor), waived, waiver_expires, moves)| Wish {
            dry_run,
            reclaim,
            allow_deletes,
            waived,
            waiver_expires,
            reseed_from: donor.map(AgentUid),
            moves,
        },
    );
    (who, counts, flags, vec(missed, 0..3), times, text(), wish).prop_map(
        |(who, counts, flags, missed, times, traceparent, wish)| RunRecord {
            id: who.0,
            project: who.1,
            trigger: who.2,
            state: who.3,
            coalesced: counts.0,
            generation: counts.1,
            attempts: counts.2,
            origin_attempt: counts.3,
            by_person: flags.0,
            replica_failed: flags.1,
            current_tree: flags.2,
            missed,
            create_time: times.0,
            start_time: times.1,
            propagate_time: times.2,
            end_time: times.3,
            traceparent,
            wish,
        },
    )
}

/// An attempt in any state.
pub(crate) fn attempt() -> impl Strategy<Value = AttemptRecord> {
    let who = (attempt_id(), project_uid(), agent_uid(), role());
    let what = (destination(), text(), run_id(), text(), text(), text());
    let flags = any::<(u32, bool, bool, u64, Option<u64>)>();
    (who, what, flags, attempt_state().boxed()).prop_map(|(who, what, flags, state)| AttemptRecord {
        id: who.0,
        project: who.1,
        agent: who.2,
        role: who.3,
        destination: what.0,
        upstream_host: what.1,
        upstream_uri: what.4,
        fell_back: what.5,
        tree: what.2,
        spec_hash: what.3,
        attempt_try: flags.0,
        first_sync: flags.1,
        mixed: flags.2,
        max_delete: flags.3,
        source: flags.4.map(fleet::id::AgentUid),
        state,
    })
}

fn attempt_state() -> impl Strategy<Value = AttemptState> {
    prop_oneof![
        span().prop_map(|delay| AttemptState::Pending { delay }),
        (epoch(), wall()).prop_map(|(epoch, at)| AttemptState::Offered { epoch, at }),
        (epoch(), wall(), wall()).prop_map(|(epoch, offered, started)| AttemptState::Running {
            epoch,
            offered,
            started
        }),
        (epoch(), wall(), maybe_wall()).prop_map(|(epoch, offered, started)| AttemptState::Cancelling {
            epoch,
            offered,
            started
        }),
        (epoch(), maybe_wall(), maybe_wall(), wall(), end()).prop_map(
            |(epoch, offered, started, at, end)| AttemptState::Ended { epoch, offered, started, at, end }
        ),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        outcome().boxed().prop_map(End::Succeeded),
        outcome().boxed().prop_map(End::Failed),
        outcome().boxed().prop_map(End::Held),
        option::of(outcome().boxed()).prop_map(End::Cancelled),
        Just(End::Lost),
    ]
}

/// What any guard may have found.
pub(crate) fn kinds() -> impl Strategy<Value = Vec<GuardKind>> {
    vec(select(&GuardKind::ALL[..]), 0..3)
}

pub(crate) fn evidence() -> impl Strategy<Value = Evidence> {
    (select(&GuardKind::ALL[..]), any::<(u64, u64)>(), vec(text(), 0..3), text()).prop_map(
        |(kind, (wanted, allowed), names, sentence)| Evidence { kind, wanted, allowed, names, sentence },
    )
}

pub(crate) fn marker() -> impl Strategy<Value = Marker> {
    (select(&MarkerKind::ALL[..]), text()).prop_map(|(kind, path)| Marker { kind, path })
}

fn seen() -> impl Strategy<Value = MarkerSeen> {
    (marker(), maybe_wall(), maybe_wall(), text()).prop_map(|(marker, upstream, tree, note)| MarkerSeen {
        marker,
        upstream,
        tree,
        note,
    })
}

fn outcome() -> impl Strategy<Value = Outcome> {
    let stats = any::<[u64; 8]>().prop_map(|n| Stats {
        files: n[0],
        created: n[1],
        deleted: n[2],
        transferred: n[3],
        total_bytes: n[4],
        transferred_bytes: n[5],
        received_bytes: n[6],
        sent_bytes: n[7],
    });
    let codes = (any::<Option<i32>>(), any::<Option<i32>>(), any::<Option<u64>>());
    let texts = (text(), text(), text());
    let found = (option::of(evidence()), option::of(seen()));
    (select(&ExitClass::ALL[..]), codes, texts, option::of(stats), wall(), found).prop_map(
        |(class, codes, texts, stats, time, (evidence, marker))| Outcome {
            class,
            exit_code: codes.0,
            signal: codes.1,
            deletes_skipped: codes.2,
            cause: texts.0,
            fault: texts.1,
            advice: texts.2,
            stats,
            evidence,
            marker: marker.map(Box::new),
            time,
        },
    )
}
