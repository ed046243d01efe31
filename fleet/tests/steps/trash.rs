//! Trees of deleted projects on their way into the trash: who is told when, who goes first, and what is remembered.

use std::time::Duration;

use fleet::{
    defaults,
    id::{AgentUid, ProjectUid},
    input::{AgentInput, Ask, Input, Message, Reply},
    record::{Change, Record},
    refusal::Refusal,
    time::Wall,
    trash::{Fate, InTrash, NotTrashed, TrashOrder, TrashReport},
};

use super::world::{HOUR, World, named, ok, root, spec};

const DAY: Duration = Duration::from_secs(86_400);

/// An origin and a replica that both have the tree of a project.
struct Pair {
    world: World,
    origin: AgentUid,
    replica: AgentUid,
    project: ProjectUid,
}

impl std::ops::Deref for Pair {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl std::ops::DerefMut for Pair {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.world
    }
}

impl Pair {
    fn synced() -> Self {
        let mut world = World::new();
        let (origin, replica) = (world.agent("ftp1", &[]), world.agent("edge1", &[]));
        let project = world.declare("debian", spec("a1:debian", &[origin], vec![named(replica)])).unwrap();
        world.synced(project, &ok());
        Self { world, origin, replica, project }
    }

    fn delete(&mut self) -> Reply {
        let project = self.project;
        let delete =
            Ask::DeleteProject { project, revision: None, cancel_running: true, tree_to_trash: true };
        let reply = self.ask(delete);
        self.settle();
        reply
    }

    /// The orders that the agent was given since somebody asked last.
    fn orders(&mut self, agent: AgentUid) -> Vec<TrashOrder> {
        let (mine, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.said)
            .into_iter()
            .partition(|(to, message)| *to == agent && matches!(message, Message::Trash(_)));
        self.said = others;
        let order = |(_, message)| match message {
            Message::Trash(order) => Some(order),
            _ => None,
        };
        mine.into_iter().filter_map(order).collect()
    }

    fn tell(&mut self, agent: AgentUid, report: TrashReport) {
        let session = self.engine.session(agent).unwrap().epoch;
        self.put(Input::Agent(AgentInput::Trash { agent, session, report }));
        self.settle();
    }

    fn fate(&self, agent: AgentUid) -> Option<Fate> {
        self.engine.trash_record(agent, self.project).map(|record| record.fate.clone())
    }

    fn why(&self, agent: AgentUid) -> String {
        match self.fate(agent) {
            Some(Fate::Stays { why, .. }) => why,
            other => panic!("{other:?}"),
        }
    }

    fn come(&mut self, agent: AgentUid) {
        self.hello(agent, vec![root("a1", 512)], Vec::new());
    }

    fn again(&mut self, name: &str, to: &str) -> Result<ProjectUid, Refusal> {
        let origin = self.origin;
        self.declare(name, spec(to, &[origin], Vec::new()))
    }
}

fn trashed(order: &TrashOrder, until: Wall) -> TrashReport {
    let place = "a1:.mirror-trash/debian".to_owned();
    let tree = InTrash { project: order.project, asked: order.asked, place, until };
    TrashReport { trees: vec![tree], refused: Vec::new() }
}

fn refused(order: &TrashOrder, why: &str) -> TrashReport {
    let refused = NotTrashed { project: order.project, asked: order.asked, why: why.to_owned() };
    TrashReport { trees: Vec::new(), refused: vec![refused] }
}

#[test]
fn each_agent_answers_for_its_own_tree_and_tells_when_it_is_gone() {
    let mut pair = Pair::synced();
    assert_eq!(pair.delete(), Reply::Done);
    let (origin, replica) = (pair.origin, pair.replica);
    let order = pair.orders(origin).remove(0);
    assert_eq!((order.project, order.destination.to_string()), (pair.project, "a1:debian".to_owned()));
    assert_eq!((pair.fate(origin), pair.fate(replica)), (Some(Fate::Waiting), Some(Fate::Waiting)));
    let until = pair.now.wall.plus(7 * DAY);
    pair.tell(origin, trashed(&order, until));
    assert_eq!(pair.fate(origin), Some(Fate::Trashed { place: "a1:.mirror-trash/debian".to_owned(), until }));
    let order = pair.orders(replica).remove(0);
    pair.tell(replica, refused(&order, "allow_trash is not set"));
    assert_eq!(pair.why(replica), "allow_trash is not set");
    // Neither is told again, and what an agent has no more is forgotten.
    pair.gone(origin);
    pair.come(origin);
    assert_eq!((pair.orders(origin), pair.fate(origin)), (Vec::new(), None));
    pair.pass(defaults::TRASH_TOLD_FOR + HOUR);
    pair.put(Input::Sweep);
    assert_eq!(pair.fate(replica), None);
}

#[test]
fn without_the_wish_nothing_is_moved() {
    let mut pair = Pair::synced();
    let project = pair.project;
    pair.ask(Ask::DeleteProject { project, revision: None, cancel_running: true, tree_to_trash: false });
    pair.settle();
    let origin = pair.origin;
    assert_eq!((pair.orders(origin), pair.fate(origin)), (Vec::new(), None));
}

#[test]
fn a_tree_that_is_still_served_is_not_moved() {
    let mut pair = Pair::synced();
    pair.mute = true;
    pair.delete();
    let origin = pair.origin;
    assert_eq!(pair.exports[&(origin, pair.project)], None, "the export is withdrawn");
    assert_eq!(pair.orders(origin), [], "and nobody has said that it is");
    pair.exporting(origin, u64::MAX);
    pair.settle();
    assert_eq!(pair.orders(origin).len(), 1);
}

#[test]
fn what_an_agent_says_before_it_has_taken_this_sessions_exports_frees_no_tree() {
    let mut pair = Pair::synced();
    let origin = pair.origin;
    pair.gone(origin);
    pair.delete();
    pair.mute = true;
    pair.come(origin);
    // It tells of its daemon, and goes on serving what it was told in the session before.
    pair.exporting(origin, 0);
    pair.settle();
    assert_eq!(pair.orders(origin), []);
    pair.exporting(origin, 1);
    pair.settle();
    assert_eq!(pair.orders(origin).len(), 1);
}

#[test]
fn an_agent_that_is_away_is_told_when_it_is_back_and_once_more_in_each_session() {
    let mut pair = Pair::synced();
    let origin = pair.origin;
    pair.gone(origin);
    pair.delete();
    assert_eq!((pair.orders(origin), pair.fate(origin)), (Vec::new(), Some(Fate::Waiting)));
    pair.pass(3 * DAY);
    pair.come(origin);
    let first = pair.orders(origin);
    assert_eq!(first.len(), 1);
    pair.gone(origin);
    pair.come(origin);
    assert_eq!(pair.orders(origin), first);
    // It did it and its answer was lost: the next hello tells.
    pair.gone(origin);
    let until = pair.now.wall.plus(7 * DAY);
    let report = trashed(&first[0], until);
    pair.trash.insert(origin, report);
    pair.come(origin);
    assert!(matches!(pair.fate(origin), Some(Fate::Trashed { .. })));
    assert_eq!(pair.orders(origin), []);
}

#[test]
fn an_agent_that_does_not_come_for_a_month_is_not_told_any_more() {
    let mut pair = Pair::synced();
    let origin = pair.origin;
    pair.gone(origin);
    pair.delete();
    pair.pass(defaults::TRASH_WAIT_MAX + HOUR);
    pair.put(Input::Sweep);
    assert!(pair.why(origin).contains("30 days"), "{}", pair.why(origin));
    pair.come(origin);
    assert_eq!(pair.orders(origin), []);
}

#[test]
fn a_project_that_is_declared_at_the_place_before_the_agent_was_told_goes_first() {
    for to in ["a1:debian", "a1:debian/pool"] {
        let mut pair = Pair::synced();
        let origin = pair.origin;
        pair.gone(origin);
        pair.delete();
        pair.again("again", to).unwrap();
        assert_eq!(pair.why(origin), "project \"again\" has this place now");
        pair.come(origin);
        assert_eq!(pair.orders(origin), [], "{to}");
    }
}

#[test]
fn nobody_is_placed_where_an_agent_moves_a_tree_until_it_has_answered() {
    let mut pair = Pair::synced();
    let origin = pair.origin;
    pair.delete();
    let order = pair.orders(origin).remove(0);
    let refusal = pair.again("again", "a1:debian").unwrap_err();
    let told = &refusal.violations[0].description;
    assert!(told.contains("the tree of the deleted project \"debian\"") && told.contains("trash"), "{told}");
    pair.again("elsewhere", "a1:other").unwrap();
    // The session ends without an answer: what is declared now goes first.
    pair.gone(origin);
    pair.again("again", "a1:debian").unwrap();
    pair.come(origin);
    assert_eq!((pair.orders(origin), pair.why(origin).contains("again")), (Vec::new(), true));
    // And an answer frees the place.
    let mut pair = Pair::synced();
    pair.delete();
    let answered = pair.orders(origin).remove(0);
    assert_eq!(answered.destination, order.destination);
    pair.tell(origin, refused(&answered, "no"));
    pair.again("again", "a1:debian").unwrap();
}

#[test]
fn what_waits_for_the_place_of_a_deleted_tree_gets_it_with_the_tree() {
    let mut pair = Pair::synced();
    let (origin, replica) = (pair.origin, pair.replica);
    let other = pair.declare("other", spec("a1:debian", &[replica], Vec::new()));
    assert!(other.is_err(), "the place is taken");
    let other = pair.declare("other", spec("a1:other", &[origin], Vec::new())).unwrap();
    pair.edit(other, |spec| {
        spec.placement.replicas = vec![fleet::project::Replicas {
            pick: fleet::project::Pick::Labels(super::world::labels(&[("role", "edge")])),
            destination: Some("a1:debian/pool".parse().unwrap()),
        }];
    });
    let record = pair.engine.agent(replica).unwrap().clone();
    let labels = super::world::labels(&[("role", "edge")]);
    let now = pair.now;
    pair.engine.apply(now, &[Change::Put(Record::Agent(fleet::agent::AgentRecord { labels, ..record }))]);
    pair.settle();
    assert!(!pair.engine.unplaced(other).is_empty(), "it waits for the place");
    pair.delete();
    assert!(pair.placement(other, replica).is_some());
    assert_eq!((pair.orders(replica), pair.why(replica).contains("other")), (Vec::new(), true));
    assert_eq!(pair.orders(origin).len(), 1);
}

#[test]
fn running_work_is_cancelled_before_and_the_agent_is_told_of_both_in_order() {
    let mut pair = Pair::synced();
    let (origin, project) = (pair.origin, pair.project);
    pair.run(project);
    let offer = pair.offered();
    let reply =
        pair.ask(Ask::DeleteProject { project, revision: None, cancel_running: false, tree_to_trash: true });
    assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    assert_eq!(pair.fate(origin), None);
    pair.said.clear();
    pair.delete();
    let told: Vec<&Message> =
        pair.said.iter().filter(|(to, _)| *to == origin).map(|(_, message)| message).collect();
    let at = |fits: fn(&Message) -> bool| told.iter().position(|message| fits(message)).unwrap();
    let cancel = at(|message| matches!(message, Message::Cancel { .. }));
    assert!(cancel < at(|message| matches!(message, Message::Trash(_))), "{told:?}");
    // How it ended changes nothing any more.
    let (attempt, epoch, outcome) = (offer.attempt, offer.epoch, ok());
    pair.put(Input::Agent(AgentInput::Ended { agent: origin, attempt, epoch, outcome }));
    assert_eq!(pair.fate(origin), Some(Fate::Waiting));
}

#[test]
fn a_revoked_agent_is_told_nothing_and_a_deleted_one_is_forgotten() {
    let mut pair = Pair::synced();
    let origin = pair.origin;
    pair.gone(origin);
    pair.delete();
    pair.ask(Ask::RevokeAgent { agent: origin, reason: "gone".to_owned() });
    pair.settle();
    assert_eq!(pair.why(origin), "its agent is revoked");
    assert_eq!(pair.ask(Ask::DeleteAgent { agent: origin }), Reply::Done);
    assert_eq!(pair.fate(origin), None);
}

#[test]
fn answers_of_other_orders_and_old_sessions_change_nothing() {
    let mut pair = Pair::synced();
    let origin = pair.origin;
    let session = pair.engine.session(origin).unwrap().epoch;
    pair.delete();
    let order = pair.orders(origin).remove(0);
    let other = TrashOrder { asked: Wall(order.asked.0 - 1), ..order.clone() };
    let until = pair.now.wall.plus(DAY);
    pair.tell(origin, trashed(&other, until));
    pair.tell(origin, refused(&other, "no"));
    assert_eq!(pair.fate(origin), Some(Fate::Waiting));
    pair.gone(origin);
    pair.come(origin);
    let report = refused(&order, "no");
    pair.put(Input::Agent(AgentInput::Trash { agent: origin, session, report }));
    assert_eq!(pair.fate(origin), Some(Fate::Waiting));
}
