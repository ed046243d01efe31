//! Projects: declarations with every cadence and setting, and what happens to projects by themselves.

use chrono::{DateTime, Utc};
use fleet::{
    project::{
        Archive, GuardSettings, LastRun, NextFire, Pause, Pick, PlacementSettings, ProjectRecord,
        ProjectSpec, ProjectState, Replicas, RetrySettings, RsyncSettings, Target, Upstream,
    },
    schedule::{
        Cadence, Cron, CronFields, DstOverlap, IntervalFrom, Named, OverlapPolicy, Schedule, Window,
        parse_crontab,
    },
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};

use super::{
    agent_uid, destination, labels, maybe_span, maybe_wall, name, project_uid, run_id, runs, runs::marker,
    span, text, wall,
};

/// A project as people declared it.
pub(crate) fn project() -> impl Strategy<Value = ProjectRecord> {
    let pause = (text(), wall(), text(), maybe_wall()).prop_map(|(by, time, reason, until)| Pause {
        by,
        time,
        reason,
        until,
    });
    let archive = (text(), wall(), text()).prop_map(|(by, time, reason)| Archive { by, time, reason });
    let stops = (option::of(pause), option::of(archive));
    (project_uid(), name(), spec().boxed(), stops, any::<u64>(), wall(), wall()).prop_map(
        |(uid, name, spec, (paused, archived), revision, create_time, update_time)| ProjectRecord {
            uid,
            name,
            spec,
            paused,
            archived,
            revision,
            create_time,
            update_time,
        },
    )
}

fn spec() -> impl Strategy<Value = ProjectSpec> {
    let people = (text(), option::of(name()), labels());
    let retry = (option::of(any::<u32>()), maybe_span())
        .prop_map(|(attempts, initial_backoff)| RetrySettings { attempts, initial_backoff });
    let guard = (option::of(any::<u64>()), option::of(any::<u32>()), vec(text(), 0..3), any::<u64>());
    let guard =
        (guard, text()).prop_map(|((max_delete, shrink_percent, sentinels, quota_bytes), partial)| {
            (GuardSettings { max_delete, shrink_percent, sentinels, quota_bytes }, partial)
        });
    let rest = (rsync().boxed(), placement().boxed(), guard, retry, option::of(destination()));
    let rest = (rest, vec(project_uid(), 0..3));
    let upstreams = (vec(upstream(), 0..3), option::of(marker()));
    (people, upstreams, destination(), schedule().boxed(), rest).prop_map(
        |((display_name, owner, labels), (upstreams, marker), destination, schedule, rest)| {
            let ((rsync, placement, (guard, partial_is_success), retry, link), after) = rest;
            ProjectSpec {
                display_name,
                owner,
                labels,
                upstreams,
                destination,
                schedule,
                rsync,
                placement,
                guard,
                marker,
                retry,
                partial_is_success,
                link,
                after,
            }
        },
    )
}

fn upstream() -> impl Strategy<Value = Upstream> {
    (text(), text(), text(), vec(any::<u8>(), 0..40))
        .prop_map(|(uri, host, user, sealed_password)| Upstream { uri, host, user, sealed_password })
}

fn rsync() -> impl Strategy<Value = RsyncSettings> {
    let timeouts = (maybe_span(), maybe_span(), maybe_span(), maybe_span());
    let parts = (option::of(vec(text(), 0..3)), option::of(text()));
    (vec(text(), 0..4), any::<bool>(), timeouts, any::<u64>(), parts).prop_map(
        |(options, no_defaults, timeouts, bandwidth_limit_kib, (defaults, delete))| RsyncSettings {
            options,
            no_defaults,
            connect_timeout: timeouts.0,
            io_timeout: timeouts.1,
            stall_timeout: timeouts.2,
            run_timeout: timeouts.3,
            bandwidth_limit_kib,
            defaults,
            delete,
        },
    )
}

fn placement() -> impl Strategy<Value = PlacementSettings> {
    let target = || {
        (agent_uid(), option::of(destination()))
            .prop_map(|(agent, destination)| Target { agent, destination })
    };
    let pick = prop_oneof![
        agent_uid().prop_map(Pick::Agent),
        btree_map(text(), text(), 1..3).prop_map(Pick::Labels),
    ];
    let replicas =
        (pick, option::of(destination())).prop_map(|(pick, destination)| Replicas { pick, destination });
    (vec(target(), 0..2), vec(replicas, 0..3), any::<u32>(), maybe_span(), option::of(span())).prop_map(
        |(origins, replicas, max_parallel, propagation_timeout, drain_timeout)| PlacementSettings {
            origins,
            replicas,
            max_parallel,
            propagation_timeout,
            drain_timeout,
        },
    )
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let zone = select(&chrono_tz::TZ_VARIANTS[..]);
    let overlap = prop_oneof![Just(OverlapPolicy::BufferOne), Just(OverlapPolicy::Skip)];
    let dst = option::of(prop_oneof![Just(DstOverlap::Once), Just(DstOverlap::Both)]);
    let window = (option::of(instant()), option::of(instant()));
    let spread = (option::of(any::<u64>()), any::<u64>());
    let more = (option::of(any::<u64>()), vec(open_window(), 0..3), spread);
    (cadence(), zone, window, any::<u32>(), overlap, dst, more).prop_map(
        |(
            cadence,
            time_zone,
            (start, end),
            jitter_seconds,
            overlap_policy,
            dst_overlap,
            (catch_up, windows, (spread_seconds, phase_seconds)),
        )| {
            Schedule {
                start,
                end,
                jitter_seconds,
                overlap_policy,
                dst_overlap,
                catch_up_window_seconds: catch_up,
                windows,
                spread_seconds,
                phase_seconds,
                ..Schedule::new(cadence, time_zone)
            }
        },
    )
}

fn open_window() -> impl Strategy<Value = Window> {
    const TEXTS: &[&str] = &["22:00-06:00", "00:00-23:59 mon", "01:30-01:31 sat,sun"];
    select(TEXTS).prop_map(|text| text.parse().expect("a window"))
}

fn instant() -> impl Strategy<Value = DateTime<Utc>> {
    (0..253_402_300_799_i64, 0..1_000_000_000_u32)
        .prop_map(|(seconds, nanos)| DateTime::from_timestamp(seconds, nanos).expect("an instant"))
}

fn cadence() -> impl Strategy<Value = Cadence> {
    let from = prop_oneof![Just(IntervalFrom::Start), Just(IntervalFrom::End)];
    const LINES: &[&str] = &["*/5 * * * *", "0 0 1,15 * 5", "@daily", "30 4 * jan-mar sun"];
    let crontab = select(LINES).prop_map(|line| parse_crontab(line).expect("a crontab line").0);
    prop_oneof![
        Just(Cadence::Manual),
        (any::<u64>(), from).prop_map(|(every_seconds, from)| Cadence::Interval { every_seconds, from }),
        prop_oneof![fields(), crontab]
            .prop_map(|fields| Cadence::Cron(Box::new(Cron::parse(fields).expect("good fields")))),
        select(&Named::ALL[..]).prop_map(|named| Cadence::Cron(Box::new(named.cron()))),
    ]
}

fn fields() -> impl Strategy<Value = CronFields> {
    let of = |texts: &'static [&'static str]| option::of(select(texts).prop_map(str::to_owned));
    let date = (
        of(&["2026", "*", "2026-2030", "2026-2040/2"]),
        of(&["*", "1", "jan-mar", "*/2"]),
        of(&["*", "last", "2nd fri", "last mon", "1-7"]),
        of(&["*", "1-10", "53"]),
        of(&["*", "0", "mon,wed", "sat-sun"]),
    );
    let time =
        (of(&["*", "2", "1,13", "*/6", " 5 "]), of(&["*", "10", "*/15", "0-30/10"]), of(&["*", "0", "*/20"]));
    (date, time).prop_map(|((year, month, day, week, day_of_week), (hour, minute, second))| CronFields {
        year,
        month,
        day,
        week,
        day_of_week,
        hour,
        minute,
        second,
    })
}

/// What happens to a project by itself.
pub(crate) fn state() -> impl Strategy<Value = ProjectState> {
    let fire = (wall(), wall(), any::<bool>()).prop_map(|(scheduled, at, spread)| NextFire {
        scheduled,
        at,
        spread,
    });
    let last =
        (run_id(), runs::run_state(), wall()).prop_map(|(run, state, end)| LastRun { run, state, end });
    let counts = any::<(u64, u64, u64, u64, u32)>();
    let tree = (option::of(run_id()), maybe_wall());
    (project_uid(), counts, option::of(fire), option::of(last), tree, maybe_wall()).prop_map(
        |(
            uid,
            (wanted, taken, missed_fires, skipped_fires, upstream),
            next_fire,
            last_run,
            (tree, marker),
            last_success,
        )| {
            ProjectState {
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
            }
        },
    )
}
