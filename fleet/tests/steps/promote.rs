//! Another agent becomes the origin, beside trees that are in the way of others.

use fleet::{
    input::{Ask, Reply},
    project::Replicas,
};

use super::world::{World, named, selected, spec};

#[test]
fn a_promotion_places_nobody_whom_another_tree_is_in_the_way_of() {
    let mut world = World::new();
    let (ftp1, ftp2) = (world.agent("ftp1", &[]), world.agent("ftp2", &[]));
    let edges = || selected("role", "edge");
    let outer = world.declare("debian", spec("a1:debian", &[ftp1], vec![edges()])).unwrap();
    let inside = Replicas { destination: Some("a1:debian/security".parse().unwrap()), ..edges() };
    let inner = world.declare("security", spec("a1:security", &[ftp2], vec![named(ftp1), inside])).unwrap();
    // Both declarations select it, and their trees would lie in each other there: the first one has the place.
    let edge1 = world.agent("edge1", &[("role", "edge")]);
    let unplaced =
        |world: &World| world.engine.unplaced(inner).into_iter().map(|(agent, _)| agent).collect::<Vec<_>>();
    assert!(world.placement(outer, edge1).is_some() && unplaced(&world) == [edge1]);
    let reply = world.ask(Ask::Promote { project: inner, agent: ftp1, revision: None, force: true });
    assert_eq!(reply, Reply::Project(inner));
    assert!(world.placement(inner, edge1).is_none() && unplaced(&world) == [edge1]);
    world.settle();
    assert!(world.placement(inner, edge1).is_none(), "nor by a tick");
}
