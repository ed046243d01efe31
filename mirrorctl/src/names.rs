//! Resource names: what is typed, what is sent, what is shown. Pure.

use crate::fault::{Faults, Outcome};

/// Figures of a run's id that are shown: the 48 bits of its time.
pub const RUN_ID_SHOWN: usize = 13;

/// `projects/debian`.
#[must_use]
pub fn project(name: &str) -> String {
    format!("projects/{}", name.strip_prefix("projects/").unwrap_or(name))
}

/// `projects/debian` of a name that could be one.
///
/// # Errors
/// A text that no project can be called.
pub fn checked_project(typed: &str) -> Outcome<String> {
    checked(typed, "PROJECT", "projects/")
}

/// `agents/edge1` of a name that could be one.
///
/// # Errors
/// A text that no agent can be called.
pub fn checked_agent(typed: &str) -> Outcome<String> {
    checked(typed, "AGENT", "agents/")
}

fn checked(typed: &str, label: &str, collection: &str) -> Outcome<String> {
    let mut faults = Faults::default();
    let name = noted(typed, label, collection, &mut faults);
    faults.finish("nothing done", "mirrorctl status")?;
    Ok(name)
}

/// `projects/debian`; that no project can be called so is noted beside the other faults.
pub fn noted_project(label: &str, typed: &str, faults: &mut Faults) -> String {
    noted(typed, label, "projects/", faults)
}

/// `agents/edge1`; that no agent can be called so is noted beside the other faults.
pub fn noted_agent(label: &str, typed: &str, faults: &mut Faults) -> String {
    noted(typed, label, "agents/", faults)
}

/// `users/maria`; that no user can be called so is noted beside the other faults.
pub fn noted_user(label: &str, typed: &str, faults: &mut Faults) -> String {
    noted(typed, label, "users/", faults)
}

fn noted(typed: &str, label: &str, collection: &str, faults: &mut Faults) -> String {
    let bare = typed.strip_prefix(collection).unwrap_or(typed);
    check_name(label, bare, faults);
    format!("{collection}{bare}")
}

/// Notes a fault when nothing can be called so.
pub fn check_name(label: &str, typed: &str, faults: &mut Faults) {
    let parsed = typed.parse::<fleet::id::Name>();
    faults.check(label, parsed.map_err(|bad| format!("{typed:?}: {bad}")));
}

/// `agents/edge1`.
#[must_use]
pub fn agent(name: &str) -> String {
    format!("agents/{}", name.strip_prefix("agents/").unwrap_or(name))
}

/// `users/maria`.
#[must_use]
pub fn user(name: &str) -> String {
    format!("users/{}", name.strip_prefix("users/").unwrap_or(name))
}

/// `users/maria` of a name that could be one.
///
/// # Errors
/// A text that no user can be called.
pub fn checked_user(typed: &str) -> Outcome<String> {
    checked(typed, "USER", "users/")
}

/// `upstreams/ftp.gnu.org`.
#[must_use]
pub fn upstream(host: &str) -> String {
    format!("upstreams/{}", host.strip_prefix("upstreams/").unwrap_or(host))
}

/// `joinTokens/…`.
#[must_use]
pub fn join_token(name: &str) -> String {
    format!("joinTokens/{}", name.strip_prefix("joinTokens/").unwrap_or(name))
}

/// `pushTokens/…`.
#[must_use]
pub fn push_token(name: &str) -> String {
    format!("pushTokens/{}", name.strip_prefix("pushTokens/").unwrap_or(name))
}

/// `housekeepingJobs/…`.
#[must_use]
pub fn housekeeping_job(name: &str) -> String {
    format!("housekeepingJobs/{}", name.strip_prefix("housekeepingJobs/").unwrap_or(name))
}

/// The last part of a name: `edge1` of `agents/edge1`.
#[must_use]
pub fn last(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// The project of `projects/debian/runs/…`.
#[must_use]
pub fn project_of(name: &str) -> &str {
    name.split('/').nth(1).unwrap_or(name)
}

/// The id of `projects/…/runs/{run}[/attempts/…]`, shortened.
#[must_use]
pub fn short_run(name: &str) -> &str {
    let id = name.split('/').nth(3).unwrap_or(name);
    id.get(..RUN_ID_SHOWN).unwrap_or(id)
}

/// What a RUN argument may mean.
#[derive(Debug, PartialEq, Eq)]
pub enum RunArg<'a> {
    /// A whole name.
    Name(&'a str),
    /// A project's newest run.
    Newest(&'a str),
    /// The beginning of a run's id within a project.
    Within(&'a str, &'a str),
    /// A project's newest run, or the beginning of some run's id.
    NewestOrId(&'a str),
}

/// Reads a RUN argument: a project, a run's id or its beginning, `PROJECT/ID`, or a whole name.
#[must_use]
pub fn run_arg(text: &str) -> RunArg<'_> {
    /// Fewer figures than this are never meant as an id.
    const ID_MIN: usize = 8;
    let parts: Vec<&str> = text.split('/').collect();
    match parts.as_slice() {
        ["projects", _, "runs", _] => RunArg::Name(text),
        ["projects", project] => RunArg::Newest(project),
        [project, id] => RunArg::Within(project, id),
        _ if text.len() >= ID_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') => {
            RunArg::NewestOrId(text)
        }
        _ => RunArg::Newest(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_when_shown() {
        let run = "projects/debian/runs/01a1f797-47f1-7c02-9d1f-8a3b6f20c1de";
        assert_eq!((project_of(run), short_run(run)), ("debian", "01a1f797-47f1"));
        assert_eq!(short_run(&format!("{run}/attempts/2")), "01a1f797-47f1");
        assert_eq!(last("agents/edge1"), "edge1");
        assert_eq!(
            (project("debian"), project("projects/debian")),
            (project("debian"), "projects/debian".into())
        );
    }

    #[test]
    fn run_arguments() {
        for (text, meant) in [
            ("debian", RunArg::Newest("debian")),
            ("projects/debian", RunArg::Newest("debian")),
            ("debian/01a1f797", RunArg::Within("debian", "01a1f797")),
            ("projects/debian/runs/x", RunArg::Name("projects/debian/runs/x")),
            ("01a1f797-47f1", RunArg::NewestOrId("01a1f797-47f1")),
            ("cafe", RunArg::Newest("cafe")),
        ] {
            assert_eq!(run_arg(text), meant, "{text}");
        }
    }
}
