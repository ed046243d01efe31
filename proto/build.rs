//! Compiles the contract with protox (no protoc needed) and keeps its descriptor set, comments included, for
//! reflection and for the breaking-change test. What the store holds is compiled too but is in no descriptor
//! set: it is nobody else's business.

use std::{env, fs, io, path::PathBuf};

use prost::Message as _;

/// The contract.
const SERVED: [&str; 8] = [
    "mirror/v1/project.proto",
    "mirror/v1/run.proto",
    "mirror/v1/agent.proto",
    "mirror/v1/enrollment.proto",
    "mirror/v1/session.proto",
    "mirror/v1/fleet.proto",
    "mirror/v1/upstream.proto",
    "mirror/v1/user.proto",
];

/// What the coordinator's store holds.
const STORED: [&str; 1] = ["mirror/store/v1/record.proto"];

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=mirror");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("OUT_DIR is not set"))?);
    let served = protox::compile(SERVED, ["."]).map_err(io::Error::other)?;
    fs::write(out.join("descriptors.bin"), served.encode_to_vec())?;
    tonic_prost_build::configure()
        // Sorted maps: the same message always has the same bytes, which request ids are compared by.
        .btree_map(".")
        // A manifest may hold thousands; an empty one must not be as large as a whole project.
        .boxed(".mirror.v1.DeclaredProject.project")
        // Secrets must not be printed by a stray {:?}: these get a Debug of their own in src/redact.rs.
        .skip_debug([
            "mirror.v1.Secrets",
            "mirror.v1.Upstream",
            "mirror.v1.EnrollRequest",
            "mirror.v1.JoinToken",
            "mirror.v1.ExportUser",
            "mirror.v1.PushToken",
            "mirror.v1.CreateUserRequest",
            "mirror.v1.SetPasswordRequest",
            "mirror.v1.LoginRequest",
            "mirror.v1.LoginResponse",
        ])
        .compile_fds(served)?;
    let stored = protox::compile(STORED, ["."]).map_err(io::Error::other)?;
    tonic_prost_build::configure()
        .btree_map(".")
        .skip_debug(["mirror.store.v1.Upstream", "mirror.store.v1.UserRecord"])
        .build_client(false)
        .build_server(false)
        .compile_fds(stored)
}
