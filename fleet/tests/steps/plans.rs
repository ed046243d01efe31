//! Plans over many projects: judged whole, recorded whole, carried out step by step, whoever does the steps.

use fleet::{
    Engine,
    id::{AgentUid, ProjectUid},
    input::{Ask, Input, Reply, RequestKey, UserAsk},
    plan::{Act, Asker, LeftOut, Pausing, PlanCounts, PlanRequest, Progress, WHY_CHARS_MAX},
    record::Record,
    refusal::{Refusal, RefusalCode},
    schedule::{Cadence, IntervalFrom, Schedule, parse_zone},
};

use super::{
    replace::plain,
    world::{HOUR, World, ok, root, spec},
};

struct Planned {
    world: World,
    agent: AgentUid,
    debian: ProjectUid,
    gnu: ProjectUid,
}

fn fleet() -> Planned {
    let mut world = World::new();
    let agent = world.agent("ftp1", &[]);
    let debian = world.declare("debian", spec("a1:debian", &[agent], Vec::new())).unwrap();
    let gnu = world.declare("gnu", spec("a1:gnu", &[agent], Vec::new())).unwrap();
    Planned { world, agent, debian, gnu }
}

impl Planned {
    fn create(&self, index: u64, name: &str, destination: &str) -> Act {
        Act::Create {
            uid: self.world.engine.uid_after(index),
            name: name.parse().unwrap(),
            spec: Box::new(spec(destination, &[self.agent], Vec::new())),
            paused: Some(Pausing { reason: "imported".to_owned(), until: None }),
            archived: None,
        }
    }

    fn change(&self, project: ProjectUid, destination: &str) -> Act {
        let revision = self.world.record(project).revision;
        Act::Change { project, revision, spec: Box::new(spec(destination, &[self.agent], Vec::new())) }
    }

    /// Records a plan, and does none of it.
    fn apply(&mut self, acts: Vec<Act>) -> Result<PlanCounts, Refusal> {
        self.apply_as(None, acts)
    }

    fn apply_as(&mut self, request: Option<RequestKey>, acts: Vec<Act>) -> Result<PlanCounts, Refusal> {
        let plan = PlanRequest { acts, asker: Asker::default(), request };
        match self.world.ask(Ask::Apply(Box::new(plan))) {
            Reply::Planned { counts, .. } => Ok(counts),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }

    /// The plan that is open.
    fn plan(&self) -> u64 {
        self.world.engine.open_plan().unwrap().0
    }

    /// The coordinator dies, and the next one has what is stored.
    fn restart(&mut self, at_least: u64) {
        let (now, limits) = (self.world.now, self.world.engine.limits().clone());
        self.world.engine = Engine::recover(limits, now, self.world.engine.records());
        self.world.put(Input::Start { at_least });
    }

    /// What was left out of a plan that has ended: name and why.
    fn left_out(&self, plan: u64) -> Vec<(String, String)> {
        let Progress::Ended(left_out) = self.world.engine.progress(plan) else {
            panic!("{:?}", self.world.engine.progress(plan))
        };
        left_out.into_iter().map(|one| (one.name.clone(), one.why.clone())).collect()
    }

    fn names(&self) -> Vec<String> {
        let projects = self.world.engine.projects_by_name();
        projects
            .map(|project| format!("{} {}", project.record.name, project.record.spec.destination))
            .collect()
    }
}

#[test]
fn a_plan_is_recorded_whole_and_a_new_coordinator_ends_it() {
    let mut fleet = fleet();
    let revision = fleet.world.record(fleet.gnu).revision;
    // gnu's place is free for the new one only after it has gone.
    let acts = vec![
        Act::Delete { project: fleet.gnu, revision },
        fleet.change(fleet.debian, "a1:pub/debian"),
        fleet.create(0, "rocky", "a1:gnu"),
        fleet.create(1, "alma", "a1:alma"),
    ];
    let counts = fleet.apply(acts).unwrap();
    assert_eq!(counts, PlanCounts { created: 2, changed: 1, deleted: 1 });
    assert_eq!(fleet.names(), ["debian a1:debian", "gnu a1:gnu"], "nothing is done by the recording");
    assert_eq!(fleet.world.engine.open_plan().map(|(_, left)| left), Some(4));

    // Before the first step and after each the coordinator may die; what its store holds is enough for the next one.
    let left = |fleet: &Planned| fleet.world.engine.open_plan().map_or(0, |(_, left)| left);
    fleet.restart(0);
    assert_eq!(left(&fleet), 4);
    for expected in (0..4).rev() {
        while left(&fleet) > expected {
            fleet.world.put(Input::Tick);
        }
        fleet.restart(0);
        assert_eq!(left(&fleet), expected);
    }
    fleet.world.settle();
    assert_eq!(fleet.names(), ["alma a1:alma", "debian a1:pub/debian", "rocky a1:gnu"]);
    let paused = fleet.world.engine.project_named(&"rocky".parse().unwrap()).unwrap().record.paused.clone();
    let paused = paused.unwrap();
    assert_eq!((paused.by.as_str(), paused.reason.as_str()), ("maria", "imported"));
}

#[test]
fn one_act_that_cannot_be_refuses_all_of_it() {
    let mut fleet = fleet();
    for (bad, code) in [
        (fleet.create(1, "fedora", "a1:rocky"), RefusalCode::InvalidArgument),
        (fleet.create(1, "GNU", "a1:x"), RefusalCode::AlreadyExists),
        (fleet.create(5, "fedora", "a1:x"), RefusalCode::Aborted),
        (Act::Delete { project: fleet.gnu, revision: 99 }, RefusalCode::Aborted),
    ] {
        let good = fleet.create(0, "rocky", "a1:rocky");
        assert_eq!(fleet.apply(vec![good, bad]).unwrap_err().code, code);
    }
    fleet.world.settle();
    assert_eq!(fleet.names(), ["debian a1:debian", "gnu a1:gnu"]);
    assert_eq!(fleet.world.engine.open_plan(), None);
}

#[test]
fn nobody_else_declares_anything_while_a_plan_is_open() {
    let mut fleet = fleet();
    let acts = vec![fleet.change(fleet.debian, "a1:pub/debian"), fleet.create(0, "rocky", "a1:rocky")];
    fleet.apply(acts).unwrap();
    let (project, agent) = (fleet.gnu, fleet.agent);
    let again = PlanRequest { acts: Vec::new(), asker: Asker::default(), request: None };
    for ask in [
        Ask::Apply(Box::new(again)),
        Ask::DeleteProject { project, revision: None, cancel_running: false, tree_to_trash: false },
        Ask::Rename { project, name: "gnu2".parse().unwrap(), revision: None },
        Ask::ReplaceAgent { replacement: plain(agent, agent), traceparent: String::new() },
        Ask::User(UserAsk::Delete { user: "maria".parse().unwrap(), revision: None }),
    ] {
        let Reply::Refused(refusal) = fleet.world.ask(ask) else { panic!("it was let through") };
        assert_eq!((refusal.code, refusal.reason), (RefusalCode::ResourceExhausted, "PLAN_OPEN"));
    }
    assert_eq!(fleet.world.ask(Ask::Drain { agent, draining: true }), Reply::Agent(agent));
    fleet.world.settle();
    let name = "gnu2".parse().unwrap();
    assert_eq!(fleet.world.ask(Ask::Rename { project, name, revision: None }), Reply::Project(project));
}

#[test]
fn what_cannot_wait_is_done_while_a_plan_is_open_and_what_it_spoils_is_left_out() {
    let mut fleet = fleet();
    let (debian, gnu) = (fleet.debian, fleet.gnu);
    let stolen = fleet.world.agent("stolen", &[]);
    fleet.world.ask(Ask::Pause { project: gnu, reason: "moving".to_owned(), until: None, revision: None });
    let mut on_stolen = fleet.create(0, "rocky", "a1:rocky");
    let Act::Create { spec, .. } = &mut on_stolen else { panic!("a creation") };
    spec.placement.origins[0].agent = stolen;
    let change = fleet.change(gnu, "a1:pub/gnu");
    let resume = Act::Resume { project: gnu, revision: fleet.world.record(gnu).revision + 1 };
    let delete = Act::Delete { project: debian, revision: fleet.world.record(debian).revision };
    let alma = fleet.create(1, "alma", "a1:alma");
    let counts = fleet.apply(vec![on_stolen, change, resume, delete, alma]).unwrap();
    assert_eq!(counts, PlanCounts { created: 2, changed: 1, deleted: 1 });
    let plan = fleet.plan();

    let reason = || "stolen".to_owned();
    assert_eq!(fleet.world.ask(Ask::RevokeAgent { agent: stolen, reason: reason() }), Reply::Agent(stolen));
    let pause = Ask::Pause { project: gnu, reason: reason(), until: None, revision: None };
    assert_eq!(fleet.world.ask(pause), Reply::Project(gnu));
    let archive = Ask::Archive { project: debian, reason: reason(), revision: None };
    assert_eq!(fleet.world.ask(archive), Reply::Project(debian));
    fleet.world.settle();

    let left_out = fleet.left_out(plan);
    let names: Vec<&str> = left_out.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["rocky", "gnu", "gnu", "debian"]);
    assert!(left_out[0].1.contains("\"stolen\" is revoked"), "{left_out:?}");
    assert!(left_out[1].1.contains("was changed meanwhile"), "{left_out:?}");
    // The pause is of the revision that the plan expects to resume, and is not the one that it was to resume.
    assert!(left_out[2].1.contains("another step of this project"), "{left_out:?}");
    assert_eq!(fleet.world.record(gnu).paused.as_ref().unwrap().reason, "stolen");
    assert_eq!(fleet.names(), ["alma a1:alma", "debian a1:debian", "gnu a1:gnu"]);
    let Progress::Ended(left_out) = fleet.world.engine.progress(plan) else { panic!("it has ended") };
    assert_eq!(counts.without(&left_out), PlanCounts { created: 1, changed: 0, deleted: 0 });
}

#[test]
fn who_is_replaced_because_it_was_stolen_need_not_wait_for_a_plan() {
    let mut fleet = fleet();
    let heir = fleet.world.agent("heir", &[]);
    let acts = vec![fleet.change(fleet.debian, "a1:pub/debian"), fleet.create(0, "rocky", "a1:rocky")];
    fleet.apply(acts).unwrap();
    let plan = fleet.plan();
    let replacement =
        fleet::input::AgentReplacement { revoke: Some("stolen".to_owned()), ..plain(fleet.agent, heir) };
    let reply = fleet.world.ask(Ask::ReplaceAgent { replacement, traceparent: String::new() });
    assert!(matches!(reply, Reply::Replaced(_)), "{reply:?}");
    fleet.world.settle();
    assert_eq!(fleet.left_out(plan).len(), 2, "both name the old one");
    assert_eq!(fleet.world.record(fleet.debian).spec.placement.origins[0].agent, heir);
}

#[test]
fn a_step_that_became_impossible_is_left_out_and_told() {
    let mut fleet = fleet();
    let (agent, debian) = (fleet.agent, fleet.debian);
    fleet.world.hello(agent, vec![root("a1", 512), root("a2", 512)], Vec::new());
    fleet.world.synced(debian, &ok());
    let to = "a2:debian".parse().unwrap();
    fleet.world.ask(Ask::Move { project: debian, agent, to, revision: None, traceparent: String::new() });
    let offer = fleet.world.offered();
    let acts = vec![fleet.create(0, "rocky", "a1:rocky"), fleet.change(debian, "a1:debian")];
    let key = RequestKey { key: "one".to_owned(), payload: "p".to_owned() };
    let counts = fleet.apply_as(Some(key.clone()), acts).unwrap();
    let plan = fleet.plan();
    // The tree has arrived at its new place, and the declaration says so now.
    fleet.world.end(&offer, ok());
    let told = fleet.left_out(plan);
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].0, "debian");
    assert!(told[0].1.contains("was changed meanwhile"), "{told:?}");
    assert_eq!(fleet.names(), ["debian a1:debian", "gnu a1:gnu", "rocky a1:rocky"]);
    let moved = &fleet.world.record(debian).spec.placement.origins[0].destination;
    assert_eq!(moved.as_ref().unwrap().to_string(), "a2:debian", "what is true stays declared");
    assert_eq!(fleet.world.engine.open_plan(), None);

    // Whoever asks again is told the same, also by the next coordinator.
    for _ in 0..2 {
        assert_eq!(fleet.apply_as(Some(key.clone()), Vec::new()), Ok(counts));
        assert_eq!(fleet.left_out(plan), told);
        let Progress::Ended(left_out) = fleet.world.engine.progress(plan) else { panic!("it has ended") };
        assert_eq!(counts.without(&left_out), PlanCounts { created: 1, ..PlanCounts::default() });
        fleet.restart(0);
    }
}

#[test]
fn what_was_left_out_is_kept_until_the_next_plan_and_then_nobody_is_told_that_all_was_done() {
    let mut fleet = fleet();
    let whole = vec![fleet.create(0, "alma", "a1:alma")];
    fleet.apply(whole).unwrap();
    let first = fleet.plan();
    fleet.world.settle();

    let spoilt = |fleet: &Planned, index, name: &str| fleet.create(index, name, &format!("a1:{name}"));
    let acts = vec![spoilt(&fleet, 0, "x"), spoilt(&fleet, 1, "y"), spoilt(&fleet, 2, "z")];
    fleet.apply(acts).unwrap();
    let second = fleet.plan();
    let agent = fleet.agent;
    fleet.world.ask(Ask::RevokeAgent { agent, reason: String::new() });
    fleet.world.settle();
    assert_eq!(fleet.left_out(second).len(), 3);
    assert!(fleet.left_out(first).is_empty(), "of the first one nothing was left out");

    // A plan that changes nothing takes nothing's place.
    assert_eq!(fleet.apply(Vec::new()), Ok(PlanCounts::default()));
    assert_eq!(fleet.left_out(second).len(), 3);

    let delete = Act::Delete { project: fleet.gnu, revision: fleet.world.record(fleet.gnu).revision };
    fleet.apply(vec![delete]).unwrap();
    let third = fleet.plan();
    let kept = |fleet: &Planned| {
        fleet.world.engine.records().filter(|record| matches!(record, Record::LeftOut(_))).count()
    };
    for _ in 0..2 {
        assert_eq!(kept(&fleet), 0);
        // The first was before the one that is forgotten, and is not told apart from it.
        assert_eq!(fleet.world.engine.progress(second), Progress::Forgotten);
        assert_eq!(fleet.world.engine.progress(first), Progress::Forgotten);
        fleet.world.settle();
        assert!(fleet.left_out(third).is_empty());
        fleet.restart(0);
    }
    // Neither the step of another plan nor what was left out of one is taken for one's own.
    assert_eq!(fleet.names(), ["alma a1:alma", "debian a1:debian"]);
}

#[test]
fn the_reason_of_what_is_left_out_is_bounded() {
    let mut fleet = fleet();
    let act = fleet.create(0, "rocky", "a1:rocky");
    fleet.apply(vec![act]).unwrap();
    let step = fleet.world.engine.plan_step_at(0).unwrap().clone();
    let long = Refusal::new(RefusalCode::InvalidArgument, "LONG", "é".repeat(WHY_CHARS_MAX + 9));
    let decision = fleet.world.engine.leave_out(&step, long);
    let [fleet::record::Change::Put(Record::LeftOut(LeftOut { why, .. }))] = &decision.changes[..] else {
        panic!("{decision:?}")
    };
    assert_eq!(why.chars().count(), WHY_CHARS_MAX);
}

#[test]
fn steps_wait_while_the_fleet_is_frozen() {
    let mut fleet = fleet();
    let acts = vec![fleet.create(0, "rocky", "a1:rocky"), fleet.create(1, "alma", "a1:alma")];
    fleet.apply(acts.clone()).unwrap();
    let plan = fleet.plan();
    fleet.world.put(Input::Tick);
    fleet.world.ask(Ask::Freeze { reason: "wrong file".to_owned() });
    fleet.world.settle();
    assert_eq!(fleet.world.engine.progress(plan), Progress::Open { left: 1, frozen: true });
    fleet.restart(0);
    fleet.world.pass(HOUR);
    assert_eq!(fleet.names(), ["debian a1:debian", "gnu a1:gnu", "rocky a1:rocky"]);
    let delete = Ask::DeleteProject {
        project: fleet.gnu,
        revision: None,
        cancel_running: false,
        tree_to_trash: false,
    };
    let Reply::Refused(refusal) = fleet.world.ask(delete) else { panic!("a plan is open") };
    assert!(refusal.message.contains("mirrorctl thaw"), "{}", refusal.message);
    fleet.world.ask(Ask::Thaw);
    fleet.world.settle();
    assert!(fleet.left_out(plan).is_empty());
    assert_eq!(fleet.names().len(), 4);

    fleet.world.ask(Ask::Freeze { reason: String::new() });
    let act = fleet.create(0, "fedora", "a1:fedora");
    assert_eq!(fleet.apply(vec![act]).unwrap_err().reason, "FLEET_FROZEN");
    assert_eq!(fleet.apply(Vec::new()), Ok(PlanCounts::default()), "it begins nothing");
}

#[test]
fn a_restore_in_the_middle_of_a_plan_does_not_carry_it_out() {
    let mut fleet = fleet();
    let acts = vec![fleet.create(0, "rocky", "a1:rocky"), fleet.create(1, "alma", "a1:alma")];
    let counts = fleet.apply(acts).unwrap();
    let plan = fleet.plan();
    fleet.world.put(Input::Tick);
    // As of a term that is above whatever may have been lost.
    fleet.restart(1_800_000_000);
    fleet.world.settle();
    assert_eq!(fleet.names(), ["debian a1:debian", "gnu a1:gnu", "rocky a1:rocky"]);
    let Progress::Ended(left_out) = fleet.world.engine.progress(plan) else { panic!("it has ended") };
    assert_eq!(counts.without(&left_out), PlanCounts { created: 1, ..PlanCounts::default() });
    assert!(left_out[0].name == "alma" && left_out[0].why.contains("put back"), "{left_out:?}");
}

#[test]
fn fires_reports_and_offers_go_on_while_a_plan_is_carried_out() {
    let mut fleet = fleet();
    let (agent, debian) = (fleet.agent, fleet.debian);
    fleet.world.edit(debian, |spec| {
        let every = Cadence::Interval { every_seconds: 3_600, from: IntervalFrom::Start };
        spec.schedule = Schedule::new(every, parse_zone("UTC").unwrap());
    });
    let acts = (0..200).map(|n| fleet.create(n, &format!("p{n}"), &format!("a1:p{n}"))).collect();
    fleet.apply(acts).unwrap();
    let left = |fleet: &Planned| fleet.world.engine.open_plan().map_or(0, |(_, left)| left);
    fleet.world.now.wall = fleet.world.now.wall.plus(2 * HOUR);
    fleet.world.put(Input::Tick);
    fleet.world.put(Input::Tick);
    assert_eq!(left(&fleet), 199, "one step and the fire");
    let runs = |fleet: &Planned| fleet.world.engine.project(debian).unwrap().runs.len();
    assert_eq!(runs(&fleet), 1);
    while fleet.world.offers.is_empty() {
        fleet.world.put(Input::Tick);
    }
    assert!(left(&fleet) > 100, "{} are left", left(&fleet));
    // An agent that comes back and one that reports find their answers at once.
    let offer = fleet.world.offers.remove(0);
    fleet.world.accept(&offer);
    fleet.world.report(&offer, ok());
    assert!(left(&fleet) > 100 && fleet.world.tree(debian).is_some());
    let steps = left(&fleet);
    fleet.world.put(Input::Tick);
    fleet.world.put(Input::Tick);
    assert!(left(&fleet) < steps, "and the plan goes on");
    fleet.world.hello(agent, vec![root("a1", 512)], Vec::new());
    assert_eq!((left(&fleet), fleet.names().len()), (0, 202));
}

#[test]
fn what_was_created_before_the_plan_has_its_answer_while_the_plan_is_open() {
    let mut fleet = fleet();
    let request =
        |key: &str, payload: &str| Some(RequestKey { key: key.to_owned(), payload: payload.to_owned() });
    let spec = spec("a1:cpan", &[fleet.agent], Vec::new());
    let create = |key: &str, payload: &str| Ask::CreateProject {
        name: "cpan".parse().unwrap(),
        spec: Box::new(spec.clone()),
        paused: false,
        request: request(key, payload),
        validate_only: false,
    };
    let declare = |key: &str| Ask::CreateAgent {
        name: "ftp9".parse().unwrap(),
        labels: std::collections::BTreeMap::new(),
        caps: fleet::agent::AgentCaps::default(),
        request: request(key, "p"),
        validate_only: false,
    };
    let (project, agent) = (fleet.world.ask(create("c", "p")), fleet.world.ask(declare("a")));
    assert!(matches!((&project, &agent), (Reply::Project(_), Reply::Agent(_))), "{project:?} {agent:?}");
    let act = fleet.create(0, "rocky", "a1:rocky");
    fleet.apply(vec![act]).unwrap();
    assert_eq!(fleet.world.ask(create("c", "p")), project);
    assert_eq!(fleet.world.ask(declare("a")), agent);
    let reason = |reply| match reply {
        Reply::Refused(refusal) => refusal.reason,
        other => panic!("{other:?}"),
    };
    assert_eq!(reason(fleet.world.ask(create("c", "q"))), "INVALID_FIELDS", "the id was used before");
    assert_eq!(reason(fleet.world.ask(create("d", "p"))), "PLAN_OPEN");
    assert_eq!(fleet.world.engine.open_plan().map(|(_, left)| left), Some(1));
}
