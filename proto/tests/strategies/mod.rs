//! Records of every kind with every shape of content, for the property tests.

mod projects;
mod runs;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use fleet::{
    agent::{
        AgentCaps, AgentRecord, JoinToken, LastKnown, PasswordHash, PushToken, Root, TokenNames, UserRecord,
        UserRole, UserToken,
    },
    attempt::Role,
    id::{AgentUid, AttemptId, Epoch, Name, ProjectUid, RunId},
    placement::{Behind, Hold, PlacementRecord},
    plan::{Act, Asker, Deed, LeftOut, Pausing, PlanCounts, PlanStep},
    project::Destination,
    record::{Answer, FleetRecord, Freeze, Record, RequestRecord},
    time::Wall,
    trash::{Fate, TrashRecord},
    upstream::UpstreamRecord,
};
use proptest::{
    collection::{self, btree_map},
    option,
    prelude::*,
};

pub(crate) use projects::project;

/// A record of any kind. Boxed here and below: unboxed, the strategies of all fields would not fit on a test's
/// stack.
pub(crate) fn record() -> impl Strategy<Value = Record> {
    prop_oneof![
        fleet_record().prop_map(Record::Fleet).boxed(),
        project().prop_map(|record| Record::Project(Arc::new(record))).boxed(),
        projects::state().prop_map(Record::ProjectState).boxed(),
        placement().prop_map(Record::Placement).boxed(),
        agent().prop_map(Record::Agent).boxed(),
        join_token().prop_map(Record::JoinToken).boxed(),
        user().prop_map(Record::User).boxed(),
        user_token().prop_map(Record::UserToken).boxed(),
        push_token().prop_map(Record::PushToken).boxed(),
        request().prop_map(Record::Request).boxed(),
        runs::run().prop_map(Record::Run).boxed(),
        runs::attempt().prop_map(Record::Attempt).boxed(),
        upstream().prop_map(Record::Upstream).boxed(),
        plan_step().prop_map(|step| Record::PlanStep(Box::new(step))).boxed(),
        left_out().prop_map(Record::LeftOut).boxed(),
        trash().prop_map(Record::Trash).boxed(),
    ]
}

fn trash() -> impl Strategy<Value = TrashRecord> {
    let fate = prop_oneof![
        Just(Fate::Waiting),
        (text(), wall()).prop_map(|(place, until)| Fate::Trashed { place, until }),
        (text(), wall()).prop_map(|(why, at)| Fate::Stays { why, at }),
    ];
    (agent_uid(), project_uid(), name(), destination(), text(), wall(), fate).prop_map(
        |(agent, project, name, destination, by, asked, fate)| TrashRecord {
            agent,
            project,
            name,
            destination,
            by,
            asked,
            fate,
        },
    )
}

fn pausing() -> impl Strategy<Value = Pausing> {
    (text(), option::of(wall())).prop_map(|(reason, until)| Pausing { reason, until })
}

fn plan_step() -> impl Strategy<Value = PlanStep> {
    let at = || (project_uid(), any::<u64>());
    let act = prop_oneof![
        (project(), option::of(pausing()), option::of(text())).prop_map(|(of, paused, archived)| {
            Act::Create { uid: of.uid, name: of.name, spec: Box::new(of.spec), paused, archived }
        }),
        (at(), project()).prop_map(|((project, revision), of)| Act::Change {
            project,
            revision,
            spec: Box::new(of.spec),
        }),
        (at(), pausing()).prop_map(|((project, revision), pausing)| Act::Pause {
            project,
            revision,
            pausing
        }),
        (at(), text()).prop_map(|((project, revision), reason)| Act::Archive { project, revision, reason }),
        at().prop_map(|(project, revision)| Act::Unarchive { project, revision }),
        at().prop_map(|(project, revision)| Act::Resume { project, revision }),
        at().prop_map(|(project, revision)| Act::Delete { project, revision }),
    ];
    let asker = (text(), text(), text()).prop_map(|(who, from, request_id)| Asker { who, from, request_id });
    (any::<u64>(), any::<u32>(), text(), asker, act.boxed())
        .prop_map(|(plan, number, by, asker, act)| PlanStep { plan, number, by, asker, act })
}

fn left_out() -> impl Strategy<Value = LeftOut> {
    let deed = prop_oneof![Just(Deed::Create), Just(Deed::Change), Just(Deed::Delete)];
    (any::<u64>(), any::<u32>(), deed, project_uid(), text(), text()).prop_map(
        |(plan, number, deed, project, name, why)| LeftOut { plan, number, deed, project, name, why },
    )
}

fn upstream() -> impl Strategy<Value = UpstreamRecord> {
    let slots = option::of(any::<u32>());
    (text(), slots, maybe_span(), any::<u64>(), wall(), wall()).prop_map(
        |(host, slots, spacing, revision, create_time, update_time)| UpstreamRecord {
            host,
            slots,
            spacing,
            revision,
            create_time,
            update_time,
        },
    )
}

fn wall() -> impl Strategy<Value = Wall> {
    prop_oneof![Just(0), 1_700_000_000_000..1_900_000_000_000_i64, any::<i64>()].prop_map(Wall)
}

fn maybe_wall() -> impl Strategy<Value = Option<Wall>> {
    option::of(wall())
}

fn span() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn maybe_span() -> impl Strategy<Value = Option<Duration>> {
    option::of(span())
}

fn text() -> impl Strategy<Value = String> {
    ".{0,20}"
}

fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9][A-Za-z0-9._+-]{0,62}".prop_map(|text| text.parse().expect("a name"))
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    btree_map("[a-z][a-z0-9.]{0,10}", text(), 0..4)
}

fn destination() -> impl Strategy<Value = Destination> {
    "[a-z][a-z0-9]{0,5}:[a-z0-9_+]{1,9}(/[a-z0-9_+]{1,9}){0,3}"
        .prop_map(|text| text.parse().expect("a destination"))
}

fn role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Origin), Just(Role::Replica)]
}

fn run_id() -> impl Strategy<Value = RunId> {
    any::<u128>().prop_map(|bits| RunId(uuid::Uuid::from_u128(bits)))
}

fn attempt_id() -> impl Strategy<Value = AttemptId> {
    (run_id(), any::<u32>()).prop_map(|(run, number)| AttemptId { run, number })
}

fn epoch() -> impl Strategy<Value = Epoch> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, counter)| Epoch { term, counter })
}

fn project_uid() -> impl Strategy<Value = ProjectUid> {
    any::<u64>().prop_map(ProjectUid)
}

fn agent_uid() -> impl Strategy<Value = AgentUid> {
    any::<u64>().prop_map(AgentUid)
}

fn fleet_record() -> impl Strategy<Value = FleetRecord> {
    let freeze = (text(), wall(), text()).prop_map(|(by, time, reason)| Freeze { by, time, reason });
    (any::<u64>(), any::<u64>(), option::of(freeze), option::of(any::<u64>())).prop_map(
        |(term, next_uid, frozen, forgotten_plan)| FleetRecord { term, next_uid, frozen, forgotten_plan },
    )
}

fn placement() -> impl Strategy<Value = PlacementRecord> {
    let hold = (attempt_id(), attempt_id(), wall(), runs::evidence(), runs::kinds(), maybe_wall()).prop_map(
        |(first, newest, since, evidence, met, approved_until)| Hold {
            first,
            newest,
            since,
            evidence,
            met,
            approved_until,
        },
    );
    let tree = (option::of(run_id()), maybe_wall(), option::of(run_id()));
    let behind =
        (wall(), run_id(), any::<u32>()).prop_map(|(since, newest, runs)| Behind { since, newest, runs });
    (
        project_uid(),
        agent_uid(),
        role(),
        destination(),
        tree,
        any::<(u64, u64, bool, bool)>(),
        (option::of(hold), option::of(destination()), maybe_wall(), option::of(behind)),
    )
        .prop_map(|(project, agent, role, destination, tree, figures, rest)| {
            let (hold, half_moved, marker, behind) = rest;
            let (have_tree, have_time, gave_up_on) = tree;
            let (files, size_bytes, standby, half_changed) = figures;
            PlacementRecord {
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
            }
        })
}

fn agent() -> impl Strategy<Value = AgentRecord> {
    let who = (agent_uid(), name(), labels());
    let standing = (any::<bool>(), option::of(text()), text());
    let certificate = (text(), text(), wall());
    let seen = (maybe_wall(), last_known());
    (who, standing, certificate, seen, any::<u64>(), wall(), caps()).prop_map(
        |(who, standing, certificate, seen, revision, create_time, caps)| AgentRecord {
            uid: who.0,
            name: who.1,
            labels: who.2,
            caps,
            draining: standing.0,
            revoked: standing.1,
            state_id: standing.2,
            key_hash: certificate.0,
            certificate_serial: certificate.1,
            certificate_expires: certificate.2,
            last_seen: seen.0,
            last_known: seen.1,
            revision,
            create_time,
        },
    )
}

fn caps() -> impl Strategy<Value = AgentCaps> {
    (option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u64>())).prop_map(
        |(max_running, max_serving, bandwidth_limit_kib)| AgentCaps {
            max_running,
            max_serving,
            bandwidth_limit_kib,
        },
    )
}

fn last_known() -> impl Strategy<Value = LastKnown> {
    let root = (text(), text(), any::<[u64; 4]>()).prop_map(|(name, path, figures)| Root {
        name,
        path,
        total_bytes: figures[0],
        free_bytes: figures[1],
        total_inodes: figures[2],
        free_inodes: figures[3],
    });
    (text(), text(), collection::vec(root, 0..3)).prop_map(|(version, rsync_version, roots)| LastKnown {
        version,
        rsync_version,
        roots,
    })
}

fn join_token() -> impl Strategy<Value = JoinToken> {
    let names = prop_oneof![name().prop_map(TokenNames::One), text().prop_map(TokenNames::Pattern)];
    let networks = prop_oneof![Just("192.0.2.0/24"), Just("2001:db8::/32"), Just("203.0.113.7/32")];
    let networks = collection::vec(networks.prop_map(|text| text.parse().expect("a network")), 0..3);
    (text(), text(), names, networks, any::<u32>(), wall(), text()).prop_map(
        |(id, hash, names, networks, uses_left, expires, by)| JoinToken {
            id,
            hash,
            names,
            networks,
            uses_left,
            expires,
            by,
        },
    )
}

fn user() -> impl Strategy<Value = UserRecord> {
    let role = prop_oneof![
        Just(UserRole::Viewer),
        Just(UserRole::Owner),
        Just(UserRole::Operator),
        Just(UserRole::Admin)
    ];
    let password = option::of(text().prop_map(PasswordHash));
    (name(), role, any::<bool>(), password, any::<u64>(), (wall(), wall(), wall())).prop_map(
        |(name, role, disabled, password, revision, times)| UserRecord {
            name,
            role,
            disabled,
            password,
            certificates_since: times.0,
            revision,
            create_time: times.1,
            update_time: times.2,
        },
    )
}

fn user_token() -> impl Strategy<Value = UserToken> {
    (text(), name(), text(), wall(), wall(), text()).prop_map(
        |(id, user, hash, create_time, expires, from)| UserToken {
            id,
            user,
            hash,
            create_time,
            expires,
            from,
        },
    )
}

fn push_token() -> impl Strategy<Value = PushToken> {
    let times = (wall(), option::of(wall()), option::of(wall()));
    (text(), project_uid(), text(), text(), text(), times).prop_map(
        |(id, project, hash, note, by, (create_time, expires, last_used))| PushToken {
            id,
            project,
            hash,
            note,
            create_time,
            expires,
            by,
            last_used,
        },
    )
}

fn request() -> impl Strategy<Value = RequestRecord> {
    let answer = prop_oneof![
        project_uid().prop_map(Answer::Project),
        agent_uid().prop_map(Answer::Agent),
        text().prop_map(Answer::PushToken),
        (project_uid(), run_id(), any::<bool>()).prop_map(|(project, run, coalesced)| Answer::Run {
            project,
            run,
            coalesced
        }),
        (any::<u64>(), any::<[u32; 3]>()).prop_map(|(plan, [created, changed, deleted])| Answer::Plan {
            plan,
            counts: PlanCounts { created, changed, deleted },
        }),
    ];
    (text(), text(), answer, wall()).prop_map(|(key, payload, answer, expires)| RequestRecord {
        key,
        payload,
        answer,
        expires,
    })
}
