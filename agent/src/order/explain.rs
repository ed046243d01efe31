//! The command line of an order's pull for people who want to see it before it runs: made by the plan that runs, with
//! where each argument comes from. Starts nothing.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rsync::argv::Arg;
use rsync::{Command, Options, Origin, Plan, Purpose, Version};

use super::Order;
use crate::config::Config;

impl Order {
    /// The command line, and its arguments with where they come from. The flags of the default pull are among the options
    /// by then; those that are not in `given`, which is what the project says, are defaults here.
    ///
    /// # Errors
    /// As [`Order::program`].
    pub fn explain(
        &self,
        given: &Options,
        config: &Config,
        version: &Version,
        root: &Path,
        destination: &Path,
    ) -> Result<(Command, Vec<Arg>), Vec<String>> {
        let plan = self.plan(&Purpose::Pull, config, version, root, destination)?;
        let tell = |faults: Vec<rsync::PlanFault>| faults.iter().map(ToString::to_string).collect::<Vec<_>>();
        let command = plan.build().map_err(tell)?;
        // What stands in a command line of the given words alone, the project has said.
        let said = Plan { options: given.clone(), delete: None, ..plan }.build().map_err(tell)?;
        let is_default =
            |arg: &Arg| arg.origin == Origin::Project && !said.args().contains(arg) && !is_deletion(arg);
        let args = command.args().iter().map(|arg| match is_default(arg) {
            true => Arg { origin: Origin::Default, ..arg.clone() },
            false => arg.clone(),
        });
        let args = args.collect();
        Ok((command, args))
    }
}

/// Whether an argument is about deleting, of which the plan itself knows whether the project has said it.
fn is_deletion(arg: &Arg) -> bool {
    let text = arg.text.as_bytes();
    text.starts_with(b"--delete") || text.starts_with(b"--max-delete")
}
