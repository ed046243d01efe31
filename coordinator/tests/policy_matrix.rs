//! The table of rules against the design: every served method and every kind of caller. Whose a thing is that a request
//! names, `people_matrix.rs` asks a server.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod design;

use std::collections::BTreeSet;

use design::{DESIGN, descriptors, full, served};
use fleet::agent::UserRole;
use mirror_coordinator::{
    config::Reflection,
    rpc::{
        gate,
        policy::{self, Standing, Verdict},
    },
};

/// Callers, in the order of the letters below.
const CALLERS: [Standing; 6] = [
    Standing::Nobody,
    Standing::Agent,
    Standing::User(UserRole::Viewer),
    Standing::User(UserRole::Owner),
    Standing::User(UserRole::Operator),
    Standing::User(UserRole::Admin),
];

fn allowed(method: &str, reflection: Reflection) -> String {
    let letters = "NGVWOA".chars();
    let verdicts = CALLERS.iter().map(|caller| policy::decide(method, *caller, reflection));
    verdicts
        .zip(letters)
        .map(|(verdict, letter)| if verdict == Verdict::Allowed { letter } else { '-' })
        .collect()
}

#[test]
fn every_served_method_has_a_row_and_every_row_is_served() {
    let rows: BTreeSet<String> = policy::TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(rows.len(), policy::TABLE.len(), "a method has two rows");
    assert_eq!(rows, served());
}

#[test]
fn every_method_and_role_is_as_the_design_says() {
    let mut seen = BTreeSet::new();
    for (method, wanted, _) in DESIGN {
        let full = full(method);
        assert_eq!(allowed(&full, Reflection::Users), wanted, "{full}");
        seen.insert(full);
    }
    let left: Vec<String> = served().difference(&seen).cloned().collect();
    let others = [
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ];
    assert_eq!(left, others, "the design's table above lacks a method");
    assert_eq!(allowed(others[0], Reflection::Users), "NGVWOA");
}

#[test]
fn a_push_token_pushes_and_does_nothing_else() {
    for method in served() {
        let verdict = policy::decide(&method, Standing::PushToken, Reflection::Users);
        let open = policy::decide(&method, Standing::Nobody, Reflection::Users) == Verdict::Allowed;
        let wanted = open || method == "/mirror.v1.ProjectService/PushProject";
        assert_eq!(verdict == Verdict::Allowed, wanted, "{method}: {verdict:?}");
    }
}

#[test]
fn every_stream_of_users_is_known_to_the_gate() {
    let mut streams = BTreeSet::new();
    for service in descriptors().services() {
        for method in service.methods().filter(prost_reflect::MethodDescriptor::is_server_streaming) {
            streams.insert(format!("/{}/{}", service.full_name(), method.name()));
        }
    }
    // The agents' own, and one that is open to all.
    for other in ["/mirror.v1.SessionService/OpenSession", "/grpc.health.v1.Health/Watch"] {
        assert!(streams.remove(other));
    }
    assert_eq!(streams, gate::STREAMS.into_iter().map(str::to_owned).collect());
}

#[test]
fn reflection_is_as_configured() {
    for version in ["v1", "v1alpha"] {
        let method = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        assert_eq!(allowed(&method, Reflection::Open), "NGVWOA");
        assert_eq!(allowed(&method, Reflection::Users), "--VWOA");
        assert_eq!(allowed(&method, Reflection::Off), "------");
    }
}

#[test]
fn a_method_without_a_row_is_refused_to_everybody() {
    for method in ["/mirror.v1.ProjectService/Fly", "/mirror.v1.projectservice/GetProject", "", "/", "//"] {
        assert_eq!(allowed(method, Reflection::Open), "------", "{method}");
        assert_eq!(policy::name(method), "unknown method");
    }
}
