//! Plans over many projects: judged whole, recorded whole, carried out step by step, whoever does the steps.

use fleet::{
    Engine,
    id::{AgentUid, ProjectUid},
    input::{Ask, Input, Reply, UserAsk},
    plan::{Act, Asker, PlanCounts, PlanRequest},
    refusal::{Refusal, RefusalCode},
};

use super::world::{World, ok, root, spec};

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
            paused: Some("imported".to_owned()),
        }
    }

    fn change(&self, project: ProjectUid, destination: &str) -> Act {
        let revision = self.world.record(project).revision;
        Act::Change { project, revision, spec: Box::new(spec(destination, &[self.agent], Vec::new())) }
    }

    /// Records a plan, and does none of it.
    fn apply(&mut self, acts: Vec<Act>) -> Result<PlanCounts, Refusal> {
        let plan = PlanRequest { acts, asker: Asker::default(), request: None };
        match self.world.ask(Ask::Apply(Box::new(plan))) {
            Reply::Planned { counts, .. } => Ok(counts),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
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

    // After each step the coordinator may die; what its store holds is enough for the next one.
    for left in (0..4).rev() {
        fleet.world.put(Input::Tick);
        let now = fleet.world.now;
        let limits = fleet.world.engine.limits().clone();
        fleet.world.engine = Engine::recover(limits, now, fleet.world.engine.records());
        fleet.world.put(Input::Start { at_least: 0 });
        assert_eq!(fleet.world.engine.open_plan().map_or(0, |(_, left)| left), left);
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
        Ask::Resume { project, revision: None },
        Ask::RevokeAgent { agent, reason: String::new() },
        Ask::User(UserAsk::Delete { user: "maria".parse().unwrap(), revision: None }),
    ] {
        let Reply::Refused(refusal) = fleet.world.ask(ask) else { panic!("it was let through") };
        assert_eq!((refusal.code, refusal.reason), (RefusalCode::ResourceExhausted, "PLAN_OPEN"));
    }
    assert_eq!(fleet.world.ask(Ask::Drain { agent, draining: true }), Reply::Agent(agent));
    fleet.world.settle();
    assert_eq!(fleet.world.ask(Ask::Resume { project, revision: None }), Reply::Project(project));
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
    fleet.apply(acts).unwrap();
    let (plan, _) = fleet.world.engine.open_plan().unwrap();
    // The tree has arrived at its new place, and the declaration says so now.
    fleet.world.end(&offer, ok());
    let left_out: Vec<_> = fleet.world.engine.left_out_of(plan).collect();
    assert_eq!(left_out.len(), 1, "{left_out:?}");
    assert_eq!(left_out[0].project, "debian");
    assert!(left_out[0].why.contains("was changed meanwhile"), "{left_out:?}");
    assert_eq!(fleet.names(), ["debian a1:debian", "gnu a1:gnu", "rocky a1:rocky"]);
    let moved = &fleet.world.record(debian).spec.placement.origins[0].destination;
    assert_eq!(moved.as_ref().unwrap().to_string(), "a2:debian", "what is true stays declared");
    assert_eq!(fleet.world.engine.open_plan(), None);
}
