//! What labels select, beside trees that are in the way: nobody is placed there, and nobody else's edit is refused for it.

use fleet::{
    engine::REPLICAS_MAX,
    id::{AgentUid, ProjectUid},
    input::{Ask, Reply},
    project::{ProjectSpec, Replicas},
    refusal::Refusal,
};

use super::world::{World, labels, named, selected, spec};

fn edges() -> Replicas {
    selected("role", "edge")
}

fn at(destination: &str, replicas: Replicas) -> Replicas {
    Replicas { destination: Some(destination.parse().unwrap()), ..replicas }
}

impl World {
    fn unplaced(&self, project: ProjectUid) -> Vec<AgentUid> {
        self.engine.unplaced(project).into_iter().map(|(agent, _)| agent).collect()
    }

    fn try_edit(
        &mut self,
        project: ProjectUid,
        change: impl FnOnce(&mut ProjectSpec),
    ) -> Result<(), Refusal> {
        let record = self.record(project);
        let (mut spec, revision) = (Box::new(record.spec.clone()), record.revision);
        change(&mut spec);
        let reply = self.ask(Ask::UpdateProject { project, spec, revision, validate_only: false });
        self.settle();
        match reply {
            Reply::Project(_) => Ok(()),
            Reply::Refused(refusal) => Err(refusal),
            other => panic!("{other:?}"),
        }
    }
}

/// `inner` selects `edge1` at a place inside the tree that `outer` has there: it stays unplaced.
struct Beside {
    world: World,
    edge1: AgentUid,
    outer: ProjectUid,
    inner: ProjectUid,
}

fn beside() -> Beside {
    let mut world = World::new();
    let (ftp1, ftp2) = (world.agent("ftp1", &[]), world.agent("ftp2", &[]));
    let outer = world.declare("debian", spec("a1:debian", &[ftp1], vec![edges()])).unwrap();
    let inside = at("a1:debian/security", edges());
    let inner = world.declare("security", spec("a1:security", &[ftp2], vec![inside])).unwrap();
    let edge1 = world.agent("edge1", &[("role", "edge")]);
    assert!(world.placement(outer, edge1).is_some());
    assert_eq!(world.unplaced(inner), [edge1]);
    Beside { world, edge1, outer, inner }
}

#[test]
fn who_cannot_be_placed_by_his_labels_is_no_fault_of_another_edit() {
    let Beside { mut world, edge1, outer, inner } = beside();
    let ftp3 = world.agent("ftp3", &[]);
    world.edit(inner, |spec| {
        spec.display_name = "Security".to_owned();
        spec.placement.replicas.push(named(ftp3));
    });
    assert!(world.placement(inner, ftp3).is_some() && world.placement(inner, edge1).is_none());
    assert_eq!(world.unplaced(inner), [edge1], "he stays what he was, and is told");
    // What is asked of him now is a fault: another place in that tree, or by his name.
    let elsewhere = world.try_edit(inner, |spec| spec.placement.replicas[0] = at("a1:debian/x", edges()));
    assert_eq!(elsewhere.unwrap_err().violations[0].field, "placement.replicas[0]");
    let by_name =
        |spec: &mut ProjectSpec| spec.placement.replicas.push(at("a1:debian/security", named(edge1)));
    assert_eq!(world.try_edit(inner, by_name).unwrap_err().violations[0].field, "placement.replicas[2]");
    let wider = world.try_edit(inner, |spec| {
        spec.placement.replicas[0] = at("a1:debian/y", selected("site", "north"));
        spec.placement.replicas.push(at("a1:debian/y", edges()));
    });
    assert_eq!(wider.unwrap_err().violations[0].field, "placement.replicas[2]");
    // There is room as soon as the other tree goes.
    world.edit(outer, |spec| spec.placement.replicas.clear());
    assert!(world.placement(inner, edge1).is_some() && world.unplaced(inner).is_empty());
}

#[test]
fn more_replicas_by_labels_than_are_possible_are_no_fault_of_another_edit() {
    let mut world = World::new();
    let (ftp1, ftp2) = (world.agent("ftp1", &[]), world.agent("ftp2", &[]));
    let project = world.declare("debian", spec("a1:debian", &[ftp1], vec![edges()])).unwrap();
    for n in 0..=REPLICAS_MAX {
        world.enroll(&format!("edge{n}"), &[("role", "edge")]);
    }
    world.settle();
    assert_eq!(world.unplaced(project).len(), 1);
    world.edit(project, |spec| spec.display_name = "Debian".to_owned());
    let more = world.try_edit(project, |spec| spec.placement.replicas.push(named(ftp2))).unwrap_err();
    assert!(more.violations[0].field == "placement.replicas[1]", "{more}");
    assert!(more.violations[0].description.contains("202 replicas"), "{more}");
}

#[test]
fn nobody_is_placed_by_his_labels_where_the_public_link_would_lie_in_another_tree() {
    let mut world = World::new();
    let (ftp1, ftp2) = (world.agent("ftp1", &[]), world.agent("ftp2", &[]));
    let outer = world.declare("all", spec("a1:all", &[ftp1], vec![edges()])).unwrap();
    let edge1 = world.agent("edge1", &[("role", "edge")]);
    let mut declared = spec("a1:security", &[ftp2], vec![selected("tier", "1")]);
    declared.link = Some("a1:all/security".parse().unwrap());
    let linked = world.declare("security", declared).unwrap();
    let revision = world.engine.agent(edge1).unwrap().revision;
    let (labels, caps) = (labels(&[("role", "edge"), ("tier", "1")]), Default::default());
    world.ask(Ask::UpdateAgent { agent: edge1, labels, caps, revision, validate_only: false });
    world.settle();
    // Each run of the other project would delete the link.
    assert!(world.placement(linked, edge1).is_none());
    let told = world.engine.unplaced(linked);
    let [(agent, text)] = &told[..] else { panic!("{told:?}") };
    assert!(*agent == edge1 && text.contains("a1:all/security") && text.contains("\"all\""), "{text}");
    world.edit(linked, |spec| spec.display_name = "Security".to_owned());
    // Another link, or room for this one, and it is placed.
    world.edit(linked, |spec| spec.link = Some("a1:pub/security".parse().unwrap()));
    assert!(world.placement(linked, edge1).is_some());
    world.edit(linked, |spec| spec.placement.replicas.clear());
    assert!(world.placement(outer, edge1).is_some() && world.placement(linked, edge1).is_none());
}
