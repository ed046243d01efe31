//! Names, archived trees, and projects that run after others: told step by step, with attempts on agents meanwhile.

use std::time::Duration;

use fleet::{
    id::{Name, ProjectUid, RunId},
    input::{Ask, Message, Push, Reply},
    outcome::{ExitClass, Outcome},
    plan::{Act, Asker, Pausing, PlanCounts, PlanRequest},
    project::FOLLOWERS_MAX,
    refusal::{Refusal, RefusalCode},
    run::{RunState, TriggerKind, Wish},
    schedule::{Cadence, Cron, Schedule, parse_zone},
};

use super::world::{HOUR, World, named, ok, spec};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn hourly() -> Schedule {
    let cron = Cron::parse("minute=10".parse().unwrap()).unwrap();
    Schedule::new(Cadence::Cron(Box::new(cron)), parse_zone("UTC").unwrap())
}

fn refusal(reply: Reply) -> Refusal {
    match reply {
        Reply::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

impl World {
    fn rename(&mut self, project: ProjectUid, to: &str) -> Reply {
        let reply = self.ask(Ask::Rename { project, name: name(to), revision: None });
        self.settle();
        reply
    }

    fn archive(&mut self, project: ProjectUid) {
        let reply = self.ask(Ask::Archive { project, reason: "upstream is gone".to_owned(), revision: None });
        assert_eq!(reply, Reply::Project(project));
        self.settle();
    }

    fn unarchive(&mut self, project: ProjectUid) {
        let reply = self.ask(Ask::Unarchive { project, revision: None });
        assert_eq!(reply, Reply::Project(project));
        self.settle();
    }

    fn push_to(&mut self, project: ProjectUid) -> Reply {
        let (token, over_limit, request, traceparent) = (None, false, None, String::new());
        let reply = self.ask(Ask::Push(Push { project, token, over_limit, request, traceparent }));
        self.settle();
        reply
    }

    /// The project's runs that have not closed.
    fn open(&self, project: ProjectUid) -> Vec<RunId> {
        let runs = self.engine.project(project).unwrap().runs.iter().copied();
        runs.filter(|id| self.engine.run(*id).is_some_and(|run| !run.state.is_closed())).collect()
    }

    fn state_of(&self, project: ProjectUid) -> &fleet::project::ProjectState {
        &self.engine.project(project).unwrap().state
    }
}

#[test]
fn a_renamed_project_keeps_all_it_has_and_what_is_on_agents_ends_as_its_own() {
    let mut world = World::new();
    let (ftp1, edge1) = (world.agent("ftp1", &[]), world.agent("edge1", &[]));
    let mut declared = spec("a1:debian", &[ftp1], vec![named(edge1)]);
    declared.schedule = hourly();
    let project = world.declare("debian", declared).unwrap();
    let first = world.synced(project, &ok());
    let run = world.run(project);
    let offer = world.offered();
    let (record, state) = (world.record(project).clone(), world.state_of(project).clone());
    assert_eq!(world.rename(project, "Debian-archive"), Reply::Project(project));
    let renamed = world.record(project).clone();
    assert_eq!(renamed.name, name("debian-archive"));
    assert_eq!(renamed.revision, record.revision + 1);
    assert_eq!((&renamed.spec, renamed.create_time), (&record.spec, record.create_time));
    assert_eq!(world.state_of(project), &state);
    assert!(world.engine.project_named(&name("debian")).is_none());
    // Who serves it is told its name; who may pull it is as it was.
    assert_eq!(world.exports[&(ftp1, project)].as_ref().unwrap().name.as_str(), "Debian-archive");
    assert_eq!(world.may_pull(ftp1, project), [edge1]);
    // Orders for the time without a coordinator are told anew, under the new name.
    let told = world.said.iter().rev().find_map(|(agent, message)| match message {
        Message::Autonomy { orders, .. } if *agent == ftp1 => orders.last(),
        _ => None,
    });
    assert_eq!(told.unwrap().template.project_name.as_str(), "Debian-archive");
    // What went on meanwhile is this project's: its tree is served, and the replica gets it.
    world.end(&offer, ok());
    assert_eq!(world.tree(project), Some(run));
    assert_ne!(first, run);
    let pull = world.offered();
    assert_eq!((pull.attempt.run, pull.project_name.as_str()), (run, "Debian-archive"));
    world.end(&pull, ok());
    assert_eq!(world.placement(project, edge1).unwrap().have_tree, Some(run));
}

#[test]
fn agents_are_told_a_name_of_which_the_case_alone_has_changed() {
    let mut world = World::new();
    let (ftp1, edge1) = (world.agent("ftp1", &[]), world.agent("edge1", &[]));
    let mut declared = spec("a1:cpan", &[ftp1], vec![named(edge1)]);
    declared.schedule = hourly();
    let project = world.declare("cpan", declared).unwrap();
    world.said.clear();
    assert_eq!(world.rename(project, "CPAN"), Reply::Project(project));
    assert_eq!(world.exports[&(ftp1, project)].as_ref().unwrap().name.as_str(), "CPAN");
    let told: Vec<&str> = { world.said.iter() }
        .filter_map(|(agent, message)| match message {
            Message::Autonomy { orders, .. } if *agent == ftp1 => orders.last(),
            _ => None,
        })
        .map(|order| order.template.project_name.as_str())
        .collect();
    assert_eq!(told, ["CPAN"], "once");
}

#[test]
fn a_name_is_free_ignoring_case_and_an_etag_is_kept() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let debian = world.declare("debian", spec("a1:debian", &[ftp1], Vec::new())).unwrap();
    world.declare("CPAN", spec("a1:cpan", &[ftp1], Vec::new())).unwrap();
    let taken = refusal(world.rename(debian, "cpan"));
    assert_eq!((taken.code, taken.reason), (RefusalCode::AlreadyExists, "PROJECT_EXISTS"));
    let stale = world.ask(Ask::Rename { project: debian, name: name("x"), revision: Some(7) });
    assert_eq!(refusal(stale).code, RefusalCode::Aborted);
    assert_eq!(world.record(debian).name.as_str(), "debian");
    // Another case is another look of the same name; the same name is no change.
    assert_eq!(world.rename(debian, "Debian"), Reply::Project(debian));
    assert_eq!((world.record(debian).name.as_str(), world.record(debian).revision), ("Debian", 2));
    assert_eq!(world.rename(debian, "Debian"), Reply::Project(debian));
    assert_eq!(world.record(debian).revision, 2);
    // A name that is left is free at once.
    world.rename(debian, "debian-old");
    assert!(world.declare("debian", spec("a1:new", &[ftp1], Vec::new())).is_ok());
}

#[test]
fn an_archived_project_has_no_fire_and_waits_for_nobody() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let mut declared = spec("a1:debian", &[ftp1], Vec::new());
    declared.schedule = hourly();
    let project = world.declare("debian", declared).unwrap();
    world.synced(project, &ok());
    // One is on the agent, one waits behind it.
    world.run(project);
    let offer = world.offered();
    world.push_to(project);
    assert_eq!(world.open(project).len(), 2);
    world.archive(project);
    assert_eq!(world.state_of(project).next_fire, None);
    let open = world.open(project);
    assert_eq!(open, [offer.attempt.run], "what is on the agent goes on, what waited is cancelled");
    world.end(&offer, ok());
    assert_eq!(world.tree(project), Some(offer.attempt.run));
    world.pass(HOUR * 30);
    assert_eq!((world.open(project), world.state_of(project).missed_fires), (Vec::new(), 0));
    let refused = refusal(world.push_to(project));
    assert_eq!((refused.code, refused.reason), (RefusalCode::FailedPrecondition, "PROJECT_ARCHIVED"));
    // Archiving it again changes nothing; another schedule is armed when it is worked on again, at its next time.
    let revision = world.record(project).revision;
    world.archive(project);
    assert_eq!(world.record(project).revision, revision);
    world.edit(project, |spec| spec.rsync.bandwidth_limit_kib = 5);
    world.edit(project, |spec| spec.schedule = hourly());
    assert_eq!(world.state_of(project).next_fire, None);
    world.unarchive(project);
    let next = world.state_of(project).next_fire.unwrap();
    assert!(next.at > world.now.wall && next.at <= world.now.wall.plus(HOUR), "nothing is caught up");
}

#[test]
fn what_a_plan_declares_archived_never_fires_and_what_it_brings_back_does() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let hourly_at = |destination: &str| {
        let mut declared = spec(destination, &[ftp1], Vec::new());
        declared.schedule = hourly();
        declared
    };
    let project = world.declare("debian", hourly_at("a1:debian")).unwrap();
    let dead = world.engine.uid_after(0);
    let create = Act::Create {
        uid: dead,
        name: name("dead"),
        spec: Box::new(hourly_at("a1:dead")),
        paused: Some(Pausing { reason: "moving".to_owned(), until: Some(world.now.wall.plus(2 * HOUR)) }),
        archived: Some("upstream is gone".to_owned()),
    };
    let revision = world.record(project).revision;
    let archive = Act::Archive { project, revision, reason: "old".to_owned() };
    let apply = |acts| Ask::Apply(Box::new(PlanRequest { acts, asker: Asker::default(), request: None }));
    let reply = world.ask(apply(vec![create, archive]));
    let Reply::Planned { counts, .. } = reply else { panic!("{reply:?}") };
    assert_eq!(counts, PlanCounts { created: 1, changed: 1, deleted: 0 });
    world.settle();
    for uid in [dead, project] {
        assert_eq!(world.engine.project(uid).unwrap().state.next_fire, None);
    }
    let archived = world.record(dead).archived.clone().unwrap();
    assert_eq!((archived.by.as_str(), archived.reason.as_str()), ("maria", "upstream is gone"));
    assert_eq!(world.record(project).archived.as_ref().unwrap().reason, "old");
    world.pass(3 * HOUR);
    assert_eq!(world.record(dead).paused, None, "its pause ended at its time");
    assert!(world.engine.attempts().next().is_none(), "and nothing of it was ever begun");

    let revision = world.record(dead).revision;
    let reply = world.ask(apply(vec![Act::Unarchive { project: dead, revision }]));
    assert!(matches!(reply, Reply::Planned { .. }), "{reply:?}");
    world.settle();
    assert!(world.engine.project(dead).unwrap().state.next_fire.is_some());
}

#[test]
fn a_run_of_an_archived_project_that_a_person_wants_is_tried_once() {
    let mut world = World::new();
    let (ftp1, edge1) = (world.agent("ftp1", &[]), world.agent("edge1", &[]));
    let project = world.declare("debian", spec("a1:debian", &[ftp1], vec![named(edge1)])).unwrap();
    world.synced(project, &ok());
    world.archive(project);
    let Reply::Run { run, notes, .. } = world.wish(project, Wish::default()) else { panic!("no run") };
    assert!(notes.iter().any(|note| note.contains("archived by maria")), "{notes:?}");
    world.settle();
    let offer = world.offered();
    world.end(&offer, Outcome::of_class(ExitClass::Busy));
    world.pass(HOUR * 3);
    assert_eq!(
        world.state_of(project).last_run.map(|last| (last.run, last.state)),
        Some((run, RunState::Failed))
    );
    assert!(world.offers.is_empty() && world.open(project).is_empty());
    // What it serves still goes to whoever lacks it.
    let edge2 = world.agent("edge2", &[]);
    world.edit(project, |spec| spec.placement.replicas.push(named(edge2)));
    let pull = world.offered();
    assert_eq!(world.on(&pull), edge2);
    world.end(&pull, ok());
    assert_eq!(world.placement(project, edge2).unwrap().have_tree, world.tree(project));
}

#[test]
fn a_failed_try_is_not_repeated_once_the_project_is_archived() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let project = world.declare("debian", spec("a1:debian", &[ftp1], Vec::new())).unwrap();
    world.run(project);
    let offer = world.offered();
    world.end(&offer, Outcome::of_class(ExitClass::Network));
    assert_eq!(world.open(project).len(), 1, "its next try waits");
    world.archive(project);
    assert_eq!(world.open(project), []);
    world.pass(HOUR * 3);
    assert!(world.offers.is_empty());
}

#[test]
fn a_project_runs_whenever_one_before_it_has_a_new_tree() {
    let mut world = World::new();
    let (ftp1, edge1) = (world.agent("ftp1", &[]), world.agent("edge1", &[]));
    let debian = world.declare("debian", spec("a1:debian", &[ftp1], vec![named(edge1)])).unwrap();
    let mut declared = spec("a1:security", &[ftp1], Vec::new());
    declared.after = vec![debian];
    let security = world.declare("security", declared).unwrap();
    let mut declared = spec("a1:ports", &[ftp1], Vec::new());
    declared.after = vec![debian, security];
    let ports = world.declare("ports", declared).unwrap();
    assert!(world.offers.is_empty(), "a declaration begins nothing");

    // All have a tree, the followers by the first one's.
    world.synced(debian, &ok());
    assert_eq!([security, ports].map(|one| world.tree(one).is_some()), [true, true]);
    let wanted = world.state_of(security).wanted;

    // A failed run begins nothing; neither does one that only looks.
    world.run(debian);
    let offer = world.offered();
    world.end(&offer, Outcome::of_class(ExitClass::Auth));
    world.wish(debian, Wish { dry_run: true, ..Wish::default() });
    let offer = world.offered();
    world.end(&offer, ok());
    assert_eq!((world.open(security), world.open(ports)), (Vec::new(), Vec::new()));

    // Both begin in the decision that makes the tree, each as a run of its own, though the replica has yet to pull.
    world.run(debian);
    let offer = world.offered();
    world.report(&offer, ok());
    let (of_security, of_ports) = (world.open(security), world.open(ports));
    assert_eq!((of_security.len(), of_ports.len()), (1, 1));
    assert_ne!(of_security, of_ports);
    let trigger = world.engine.run(of_security[0]).unwrap().trigger.clone();
    assert_eq!((trigger.kind, trigger.by.as_str()), (TriggerKind::Project, "debian"));
    assert_eq!(world.state_of(security).wanted, wanted + 1);

    // While security runs, new trees join the one run that follows, however many there are.
    let end_all_but_security = |world: &mut World| {
        world.settle();
        while let Some(at) = world.offers.iter().position(|offer| offer.project != security) {
            let offer = world.offers.remove(at);
            world.accept(&offer);
            world.end(&offer, ok());
        }
    };
    end_all_but_security(&mut world);
    let offer = world.offered();
    assert_eq!((offer.project, offer.attempt.run), (security, of_security[0]));
    for _ in 0..2 {
        world.run(debian);
        end_all_but_security(&mut world);
    }
    let open = world.open(security);
    assert_eq!(open.len(), 2);
    assert_eq!(world.engine.run(open[1]).unwrap().coalesced, 1);
    assert_eq!(world.state_of(security).wanted, wanted + 3);
    // Its own tree begins what runs after it, which ran after the first one as well.
    let before = world.state_of(ports).wanted;
    world.end(&offer, ok());
    assert_eq!(world.state_of(ports).wanted, before + 1);
}

#[test]
fn what_is_paused_waits_and_what_is_archived_is_left_out() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let debian = world.declare("debian", spec("a1:debian", &[ftp1], Vec::new())).unwrap();
    let follower = |world: &mut World, name: &str| {
        let mut declared = spec(&format!("a1:{name}"), &[ftp1], Vec::new());
        declared.after = vec![debian];
        world.declare(name, declared).unwrap()
    };
    let (paused, archived) = (follower(&mut world, "paused"), follower(&mut world, "archived"));
    world.ask(Ask::Pause { project: paused, reason: String::new(), until: None, revision: None });
    world.archive(archived);
    world.synced(debian, &ok());
    assert_eq!((world.open(paused).len(), world.open(archived).len()), (1, 0));
    let run = world.open(paused)[0];
    assert_eq!(world.waits(paused, run), [fleet::engine::WaitReason::Paused]);
    world.ask(Ask::Resume { project: paused, revision: None });
    let offer = world.offered();
    assert_eq!(offer.project, paused);
    world.end(&offer, ok());
    // The followed one may go on under another name.
    world.rename(debian, "debian-main");
    world.synced(debian, &ok());
    let by = world.state_of(paused).tree.and_then(|run| world.engine.run(run)).unwrap().trigger.by.clone();
    assert_eq!(by, "debian-main");
}

#[test]
fn circles_and_unknown_ones_are_refused_and_a_followed_project_is_not_deleted() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let declare = |world: &mut World, name: &str, after: &[ProjectUid]| {
        let mut declared = spec(&format!("a1:{name}"), &[ftp1], Vec::new());
        declared.after = after.to_vec();
        world.declare(name, declared)
    };
    let a = declare(&mut world, "a", &[]).unwrap();
    let b = declare(&mut world, "b", &[a]).unwrap();
    let c = declare(&mut world, "c", &[b]).unwrap();
    let unknown = declare(&mut world, "d", &[ProjectUid(99)]).unwrap_err();
    assert_eq!((unknown.violations[0].field.as_str(), unknown.violations.len()), ("after[0]", 1));
    let update = |world: &mut World, project: ProjectUid, after: &[ProjectUid]| {
        let record = world.record(project);
        let (mut spec, revision) = (Box::new(record.spec.clone()), record.revision);
        spec.after = after.to_vec();
        let reply = world.ask(Ask::UpdateProject { project, spec, revision, validate_only: false });
        world.settle();
        reply
    };
    let circle = refusal(update(&mut world, a, &[c]));
    assert_eq!(circle.violations[0].description, "\"c\": a circle, a after c after b after a");
    let own = refusal(update(&mut world, a, &[a]));
    assert_eq!(own.violations[0].description, "\"a\": nothing runs after itself");
    let delete =
        |project| Ask::DeleteProject { project, revision: None, cancel_running: true, tree_to_trash: false };
    let followed = refusal(world.ask(delete(a)));
    assert_eq!((followed.code, followed.reason), (RefusalCode::FailedPrecondition, "PROJECT_FOLLOWED"));
    assert!(followed.message.ends_with("(mirrorctl project edit b --after '')"), "{}", followed.message);
    assert_eq!(update(&mut world, b, &[]), Reply::Project(b));
    assert_eq!(world.ask(delete(a)), Reply::Done);
    world.settle();
    // Its follower goes first, then it.
    assert_eq!(world.ask(delete(c)), Reply::Done);
    assert_eq!(world.ask(delete(b)), Reply::Done);
}

#[test]
fn as_many_as_may_run_after_one_begin_at_once() {
    let mut world = World::new();
    let ftp1 = world.agent("ftp1", &[]);
    let base = world.declare("base", spec("a1:base", &[ftp1], Vec::new())).unwrap();
    let declare = |world: &mut World, index: usize| {
        let mut declared = spec(&format!("a1:p{index}"), &[ftp1], Vec::new());
        declared.after = vec![base];
        world.declare(&format!("p{index}"), declared)
    };
    let all: Vec<ProjectUid> = (0..FOLLOWERS_MAX).map(|index| declare(&mut world, index).unwrap()).collect();
    let refused = declare(&mut world, FOLLOWERS_MAX).unwrap_err();
    assert_eq!(refused.violations[0].description, "\"base\": 64 projects run after it already");
    // An edit of one that is among them is no one more.
    world.edit(all[0], |spec| spec.rsync.bandwidth_limit_kib = 5);
    world.run(base);
    let offer = world.offered();
    world.report(&offer, ok());
    let mut runs: Vec<RunId> = all.iter().flat_map(|project| world.open(*project)).collect();
    runs.sort_unstable();
    runs.dedup();
    assert_eq!(runs.len(), FOLLOWERS_MAX, "each has a run of its own");
    world.settle();
    world.pass(Duration::from_secs(1));
}
