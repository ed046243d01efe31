//! What people declared of a project, and what happens to it by itself.

use std::collections::BTreeMap;

use fleet::{
    id::AgentUid,
    marker::Marker,
    project::{
        GuardSettings, LastRun, NextFire, Pause, Pick, PlacementSettings, ProjectRecord, ProjectSpec,
        ProjectState, Replicas, RetrySettings, RsyncSettings, Target, Upstream,
    },
    time::Wall,
};

use super::{
    Bad, Read, agent_uid, choice, destination, list, maybe, maybe_destination, maybe_run_id, name, nanos,
    need, part, project_uid, run_bytes, run_id,
    schedule::{read_schedule, schedule},
    span, wall,
};
use crate::{convert::enums::stored, store};

pub(super) fn record(record: &ProjectRecord) -> store::ProjectRecord {
    let ProjectRecord { uid, name, spec, paused, revision, create_time, update_time } = record;
    store::ProjectRecord {
        uid: Some(uid.0),
        name: Some(name.to_string()),
        spec: Some(write_spec(spec)),
        paused: paused.as_ref().map(pause),
        revision: Some(*revision),
        create_time_ms: Some(create_time.0),
        update_time_ms: Some(update_time.0),
    }
}

pub(super) fn read_record(message: store::ProjectRecord) -> Read<ProjectRecord> {
    Ok(ProjectRecord {
        uid: project_uid("uid", message.uid)?,
        name: name("name", message.name)?,
        spec: part("spec", message.spec, read_spec)?,
        paused: maybe("paused", message.paused, read_pause)?,
        revision: need("revision", message.revision)?,
        create_time: wall("create_time_ms", message.create_time_ms)?,
        update_time: wall("update_time_ms", message.update_time_ms)?,
    })
}

pub(super) fn write_spec(spec: &ProjectSpec) -> store::ProjectSpec {
    let ProjectSpec {
        display_name,
        owner,
        labels,
        upstreams,
        destination,
        schedule: when,
        rsync,
        placement,
        guard: GuardSettings { max_delete, shrink_percent, sentinels, quota_bytes },
        marker,
        retry,
        partial_is_success,
        link,
    } = spec;
    store::ProjectSpec {
        display_name: Some(display_name.clone()),
        labels: labels.clone(),
        upstreams: upstreams.iter().map(upstream).collect(),
        destination: Some(destination.to_string()),
        schedule: Some(schedule(when)),
        rsync: Some(write_rsync(rsync)),
        placement: Some(write_placement(placement)),
        max_delete: *max_delete,
        retry: Some(store::RetrySettings {
            attempts: retry.attempts,
            initial_backoff_ns: retry.initial_backoff.map(nanos),
        }),
        shrink_percent: *shrink_percent,
        sentinels: sentinels.clone(),
        quota_bytes: (*quota_bytes > 0).then_some(*quota_bytes),
        partial_is_success: Some(partial_is_success.clone()).filter(|reason| !reason.is_empty()),
        marker: marker.as_ref().map(write_marker),
        owner: owner.as_ref().map(ToString::to_string),
        link: link.as_ref().map(ToString::to_string),
    }
}

pub(super) fn read_spec(message: store::ProjectSpec) -> Read<ProjectSpec> {
    Ok(ProjectSpec {
        display_name: need("display_name", message.display_name)?,
        owner: message.owner.map(|owner| name("owner", Some(owner))).transpose()?,
        labels: message.labels,
        upstreams: list("upstreams", message.upstreams, read_upstream)?,
        destination: destination("destination", message.destination)?,
        schedule: part("schedule", message.schedule, read_schedule)?,
        rsync: part("rsync", message.rsync, read_rsync)?,
        placement: part("placement", message.placement, read_placement)?,
        guard: GuardSettings {
            max_delete: message.max_delete,
            shrink_percent: message.shrink_percent,
            sentinels: message.sentinels,
            quota_bytes: message.quota_bytes.unwrap_or(0),
        },
        marker: maybe("marker", message.marker, read_marker)?,
        partial_is_success: message.partial_is_success.unwrap_or_default(),
        link: maybe_destination("link", message.link)?,
        retry: part("retry", message.retry, |retry| {
            Ok(RetrySettings { attempts: retry.attempts, initial_backoff: span(retry.initial_backoff_ns) })
        })?,
    })
}

pub(super) fn write_marker(marker: &Marker) -> store::Marker {
    let Marker { kind, path } = marker;
    store::Marker { kind: Some(stored::marker_kind::number(*kind)), path: Some(path.clone()) }
}

pub(super) fn read_marker(message: store::Marker) -> Read<Marker> {
    Ok(Marker {
        kind: choice("kind", message.kind, stored::marker_kind::read)?,
        path: need("path", message.path)?,
    })
}

fn upstream(upstream: &Upstream) -> store::Upstream {
    let Upstream { uri, host, user, sealed_password } = upstream;
    store::Upstream {
        uri: Some(uri.clone()),
        host: Some(host.clone()),
        user: Some(user.clone()),
        sealed_password: Some(sealed_password.clone()),
    }
}

fn read_upstream(message: store::Upstream) -> Read<Upstream> {
    Ok(Upstream {
        uri: need("uri", message.uri)?,
        host: need("host", message.host)?,
        user: need("user", message.user)?,
        sealed_password: need("sealed_password", message.sealed_password)?,
    })
}

fn write_rsync(settings: &RsyncSettings) -> store::RsyncSettings {
    let RsyncSettings {
        options,
        no_defaults,
        connect_timeout,
        io_timeout,
        stall_timeout,
        run_timeout,
        bandwidth_limit_kib,
    } = settings;
    store::RsyncSettings {
        options: options.clone(),
        no_defaults: Some(*no_defaults),
        connect_timeout_ns: connect_timeout.map(nanos),
        io_timeout_ns: io_timeout.map(nanos),
        stall_timeout_ns: stall_timeout.map(nanos),
        run_timeout_ns: run_timeout.map(nanos),
        bandwidth_limit_kib: Some(*bandwidth_limit_kib),
    }
}

fn read_rsync(message: store::RsyncSettings) -> Read<RsyncSettings> {
    Ok(RsyncSettings {
        options: message.options,
        no_defaults: need("no_defaults", message.no_defaults)?,
        connect_timeout: span(message.connect_timeout_ns),
        io_timeout: span(message.io_timeout_ns),
        stall_timeout: span(message.stall_timeout_ns),
        run_timeout: span(message.run_timeout_ns),
        bandwidth_limit_kib: need("bandwidth_limit_kib", message.bandwidth_limit_kib)?,
    })
}

fn write_placement(settings: &PlacementSettings) -> store::PlacementSettings {
    let PlacementSettings { origins, replicas, max_parallel, propagation_timeout, drain_timeout } = settings;
    store::PlacementSettings {
        origins: origins.iter().map(target).collect(),
        replicas: replicas.iter().map(write_replicas).collect(),
        max_parallel: Some(*max_parallel),
        propagation_timeout_ns: propagation_timeout.map(nanos),
        drain_timeout_ns: drain_timeout.map(nanos),
    }
}

fn read_placement(message: store::PlacementSettings) -> Read<PlacementSettings> {
    Ok(PlacementSettings {
        origins: list("origins", message.origins, read_target)?,
        replicas: list("replicas", message.replicas, read_replicas)?,
        max_parallel: need("max_parallel", message.max_parallel)?,
        propagation_timeout: span(message.propagation_timeout_ns),
        drain_timeout: span(message.drain_timeout_ns),
    })
}

fn target(target: &Target) -> store::Target {
    let Target { agent, destination } = target;
    store::Target { agent: Some(agent.0), destination: destination.as_ref().map(ToString::to_string) }
}

fn read_target(message: store::Target) -> Read<Target> {
    let own = message.destination.map(|text| destination("destination", Some(text)));
    Ok(Target { agent: agent_uid("agent", message.agent)?, destination: own.transpose()? })
}

fn write_replicas(replicas: &Replicas) -> store::Replicas {
    let Replicas { pick, destination } = replicas;
    let (agent, labels) = match pick {
        Pick::Agent(agent) => (Some(agent.0), BTreeMap::new()),
        Pick::Labels(labels) => (None, labels.clone()),
    };
    store::Replicas { agent, destination: destination.as_ref().map(ToString::to_string), labels }
}

fn read_replicas(message: store::Replicas) -> Read<Replicas> {
    let own = message.destination.map(|text| destination("destination", Some(text)));
    let pick = match message.agent {
        Some(agent) => Pick::Agent(AgentUid(agent)),
        None if message.labels.is_empty() => {
            return Err(Bad::new("agent", "is missing, and there are no labels"));
        }
        None => Pick::Labels(message.labels),
    };
    Ok(Replicas { pick, destination: own.transpose()? })
}

fn pause(pause: &Pause) -> store::Pause {
    let Pause { by, time, reason, until } = pause;
    store::Pause {
        by: Some(by.clone()),
        time_ms: Some(time.0),
        reason: Some(reason.clone()),
        until_ms: until.map(|until| until.0),
    }
}

fn read_pause(message: store::Pause) -> Read<Pause> {
    Ok(Pause {
        by: need("by", message.by)?,
        time: wall("time_ms", message.time_ms)?,
        reason: need("reason", message.reason)?,
        until: message.until_ms.map(Wall),
    })
}

pub(super) fn state(state: &ProjectState) -> store::ProjectState {
    let ProjectState {
        uid,
        wanted,
        taken,
        next_fire,
        missed_fires,
        skipped_fires,
        last_run,
        tree,
        last_success,
        upstream,
        marker,
    } = state;
    store::ProjectState {
        uid: Some(uid.0),
        wanted: Some(*wanted),
        taken: Some(*taken),
        next_fire: next_fire.map(|NextFire { scheduled, at, spread }| store::NextFire {
            scheduled_ms: Some(scheduled.0),
            at_ms: Some(at.0),
            spread: Some(spread),
        }),
        missed_fires: Some(*missed_fires),
        skipped_fires: Some(*skipped_fires),
        last_run: last_run.map(|LastRun { run, state, end }| store::LastRun {
            run: Some(run_bytes(run)),
            state: Some(stored::run_state::number(state)),
            end_ms: Some(end.0),
        }),
        tree: tree.map(run_bytes),
        last_success_ms: last_success.map(|time| time.0),
        upstream: (*upstream != 0).then_some(*upstream),
        marker_ms: marker.map(|time| time.0),
    }
}

pub(super) fn read_state(message: store::ProjectState) -> Read<ProjectState> {
    let next_fire = |fire: store::NextFire| {
        Ok(NextFire {
            scheduled: wall("scheduled_ms", fire.scheduled_ms)?,
            at: wall("at_ms", fire.at_ms)?,
            spread: need("spread", fire.spread)?,
        })
    };
    let last_run = |last: store::LastRun| {
        Ok(LastRun {
            run: run_id("run", last.run)?,
            state: choice("state", last.state, stored::run_state::read)?,
            end: wall("end_ms", last.end_ms)?,
        })
    };
    Ok(ProjectState {
        uid: project_uid("uid", message.uid)?,
        wanted: need("wanted", message.wanted)?,
        taken: need("taken", message.taken)?,
        next_fire: maybe("next_fire", message.next_fire, next_fire)?,
        missed_fires: need("missed_fires", message.missed_fires)?,
        skipped_fires: need("skipped_fires", message.skipped_fires)?,
        last_run: maybe("last_run", message.last_run, last_run)?,
        tree: maybe_run_id("tree", message.tree)?,
        last_success: message.last_success_ms.map(Wall),
        upstream: message.upstream.unwrap_or_default(),
        marker: message.marker_ms.map(Wall),
    })
}
