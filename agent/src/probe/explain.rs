//! What this agent would call rsync with for an assignment, for `mirrorctl project explain`: made by the code that makes a
//! run's command line, so that what is explained is what runs. Starts nothing, opens nothing, and has no secret.

use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use fleet::id::{AttemptId, Epoch, RunId};
use mirror_proto::v1::{self, argument::Origin};
use rsync::{Options, argv};

use super::on_disk;
use crate::{executor::Live, key::Key, order::Order, outcome};

/// Longest argument that is told, in bytes.
const ARGUMENT_BYTES_MAX: usize = 4 << 10;

/// The command line of a pull, or why there is none.
pub(super) async fn line(
    live: Arc<Live>,
    assignment: v1::Assignment,
    with_password: bool,
) -> v1::CommandLine {
    let name = live.config.name.clone();
    let told =
        on_disk(move || explained(&live, &assignment, with_password).map_err(|faults| faults.join("; ")));
    told.await.unwrap_or_else(|faults| v1::CommandLine {
        fault: format!("{name} would not run it: {faults}"),
        ..v1::CommandLine::default()
    })
}

fn explained(
    live: &Live,
    assignment: &v1::Assignment,
    with_password: bool,
) -> Result<v1::CommandLine, Vec<String>> {
    // Nobody runs it, so it has the key of no attempt.
    let key = Key { id: AttemptId { run: RunId::NIL, number: 1 }, epoch: Epoch::default() };
    let order = Order::read(key, assignment, with_password)?;
    let told = |fault: &(dyn std::error::Error + 'static)| vec![outcome::chain(fault)];
    let root = live.guard.root_of(&order.destination).map_err(|fault| told(&fault))?;
    let place = live.guard.look_at(&order.destination).map_err(|fault| told(&fault))?;
    let given = Options::parse_words(&assignment.options)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let (command, args) = order.explain(&given, &live.config, &live.version, root.path(), &place)?;
    let argument = |arg: &argv::Arg| v1::Argument {
        text: rsync::text::printable(arg.text.as_bytes(), ARGUMENT_BYTES_MAX),
        origin: origin(arg.origin).into(),
        source: String::new(),
    };
    Ok(v1::CommandLine {
        program: rsync::text::printable(command.program().as_os_str().as_bytes(), ARGUMENT_BYTES_MAX),
        rsync_version: live.version.to_string(),
        arguments: args.iter().map(argument).collect(),
        ..v1::CommandLine::default()
    })
}

fn origin(origin: argv::Origin) -> Origin {
    match origin {
        argv::Origin::Default => Origin::Default,
        argv::Origin::Project => Origin::Project,
        argv::Origin::Forced => Origin::Always,
        argv::Origin::Guard => Origin::Guard,
        argv::Origin::Secret => Origin::Secret,
    }
}
