//! Resource names: `projects/{project}/runs/{run}/attempts/{n}` and their like, read strictly and written in
//! one place. Does not know whether what a name names exists.

use fleet::{
    Engine,
    agent::LOCAL_ROOT,
    defaults::REQUEST_ID_CHARS_MAX,
    id::{AgentUid, AttemptId, Name, ProjectUid, RunId},
    refusal::Violation,
};
use rsync::uri::{PORT_DEFAULT, RsyncUri};

use super::fault;

/// What stands for a name that is no longer known: its owner was deleted, its history is still there.
const UNKNOWN: &str = "?";
/// Stands for the newest run in the place of a run's id.
const NEWEST: &str = "-";
/// Longest id of a token, in bytes.
const TOKEN_ID_BYTES_MAX: usize = 64;

/// Who is called what now. Records name others by uid, people by name.
pub trait Names {
    /// The agent's name; `None`: it was deleted.
    fn agent(&self, uid: AgentUid) -> Option<Name>;
    /// The project's name; `None`: it was deleted.
    fn project(&self, uid: ProjectUid) -> Option<Name>;
}

impl Names for Engine {
    fn agent(&self, uid: AgentUid) -> Option<Name> {
        Self::agent(self, uid).map(|record| record.name.clone())
    }

    fn project(&self, uid: ProjectUid) -> Option<Name> {
        Self::project(self, uid).map(|project| project.record.name.clone())
    }
}

/// Which run is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunRef {
    /// This one.
    Id(RunId),
    /// The newest of the project, written `-`.
    Newest,
}

/// `projects/{project}`.
#[must_use]
pub fn project_name(project: &Name) -> String {
    format!("projects/{project}")
}

/// `projects/{project}/runs/{run}`.
#[must_use]
pub fn run_name(project: &Name, run: RunId) -> String {
    format!("projects/{project}/runs/{run}")
}

/// `projects/{project}/runs/{run}/attempts/{n}`.
#[must_use]
pub fn attempt_name(project: &Name, attempt: AttemptId) -> String {
    format!("projects/{project}/runs/{}/attempts/{}", attempt.run, attempt.number)
}

/// `agents/{agent}`.
#[must_use]
pub fn agent_name(agent: &Name) -> String {
    format!("agents/{agent}")
}

/// `upstreams/{host}`; the host as in URIs, an IPv6 address in brackets.
#[must_use]
pub fn upstream_name(host: &str) -> String {
    format!("upstreams/{host}")
}

/// `joinTokens/{id}`.
#[must_use]
pub fn join_token_name(id: &str) -> String {
    format!("joinTokens/{id}")
}

/// What the name of a push token begins with.
const PUSH_TOKENS: &str = "pushTokens/";

/// `pushTokens/{id}`.
#[must_use]
pub fn push_token_name(id: &str) -> String {
    format!("{PUSH_TOKENS}{id}")
}

/// `housekeepingJobs/{job}`.
#[must_use]
pub fn housekeeping_job_name(job: &str) -> String {
    format!("housekeepingJobs/{job}")
}

/// `users/{user}`; empty for nobody, and [`LOCAL_ROOT`] and push tokens as they are: those are no users.
#[must_use]
pub fn user_name(user: &str) -> String {
    let is_user = !user.is_empty() && user != LOCAL_ROOT && !user.starts_with(PUSH_TOKENS);
    if is_user { format!("users/{user}") } else { user.to_owned() }
}

/// `users/{user}/tokens/{id}`.
#[must_use]
pub fn user_token_name(user: &Name, id: &str) -> String {
    format!("users/{user}/tokens/{id}")
}

/// `agents/{agent}` of a uid, `agents/?` when it is no longer known.
#[must_use]
pub fn agent_name_of(names: &dyn Names, uid: AgentUid) -> String {
    names.agent(uid).map_or_else(|| format!("agents/{UNKNOWN}"), |name| agent_name(&name))
}

/// `projects/{project}` of a uid, `projects/?` when it is no longer known.
#[must_use]
pub fn project_name_of(names: &dyn Names, uid: ProjectUid) -> String {
    names.project(uid).map_or_else(|| format!("projects/{UNKNOWN}"), |name| project_name(&name))
}

/// Reads `projects/{project}`.
///
/// # Errors
/// Another form, or a part that is no name.
pub fn parse_project(field: &str, text: &str) -> Result<Name, Violation> {
    let [name] = parts(field, text, ["projects"], "projects/{project}")?;
    parse_name(field, name)
}

/// Reads `projects/{project}/runs/{run}`; `-` stands for the newest run.
///
/// # Errors
/// Another form, or a part that is no name or UUID.
pub fn parse_run(field: &str, text: &str) -> Result<(Name, RunRef), Violation> {
    let [project, run] = parts(field, text, ["projects", "runs"], "projects/{project}/runs/{run}")?;
    Ok((parse_name(field, project)?, parse_run_ref(field, run)?))
}

/// Reads `projects/{project}/runs/{run}` or `projects/{project}/runs/{run}/attempts/{n}`; `-` stands for the
/// newest run, and no attempt for the newest attempt.
///
/// # Errors
/// Another form, or a part that is no name, UUID or number.
pub fn parse_run_or_attempt(field: &str, text: &str) -> Result<(Name, RunRef, Option<u32>), Violation> {
    const FORM: &str = "projects/{project}/runs/{run}, with or without /attempts/{n}";
    if text.matches('/').count() < 5 {
        let [project, run] = parts(field, text, ["projects", "runs"], FORM)?;
        return Ok((parse_name(field, project)?, parse_run_ref(field, run)?, None));
    }
    let [project, run, number] = parts(field, text, ["projects", "runs", "attempts"], FORM)?;
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
    match number.parse::<u32>() {
        Ok(n) if digits => Ok((parse_name(field, project)?, parse_run_ref(field, run)?, Some(n))),
        _ => Err(fault(field, number, "an attempt's number counts from 1")),
    }
}

/// Reads `agents/{agent}`.
///
/// # Errors
/// Another form, or a part that is no name.
pub fn parse_agent(field: &str, text: &str) -> Result<Name, Violation> {
    let [name] = parts(field, text, ["agents"], "agents/{agent}")?;
    parse_name(field, name)
}

/// Reads `upstreams/{host}`; the answer is the host as URIs have it.
///
/// # Errors
/// Another form, or neither a host name nor an address.
pub fn parse_upstream(field: &str, text: &str) -> Result<String, Violation> {
    let [host] = parts(field, text, ["upstreams"], "upstreams/{host}")?;
    let alone = |uri: &RsyncUri| uri.user().is_none() && uri.port() == PORT_DEFAULT;
    match RsyncUri::parse(&format!("rsync://{host}/")) {
        Ok(uri) if alone(&uri) && !host.ends_with(":873") => Ok(uri.host().to_string()),
        Ok(_) | Err(_) => Err(fault(
            field,
            host,
            "is neither a host name nor an address; an IPv6 address stands in brackets",
        )),
    }
}

/// Reads `users/{user}`.
///
/// # Errors
/// Another form, or a part that is no name.
pub fn parse_user(field: &str, text: &str) -> Result<Name, Violation> {
    let [name] = parts(field, text, ["users"], "users/{user}")?;
    parse_name(field, name)
}

/// Reads `users/{user}/tokens/{id}`.
///
/// # Errors
/// Another form, a part that is no name, or an id of other letters than `[A-Za-z0-9_-]`.
pub fn parse_user_token(field: &str, text: &str) -> Result<(Name, String), Violation> {
    let [user, id] = parts(field, text, ["users", "tokens"], "users/{user}/tokens/{id}")?;
    let user = parse_name(field, user)?;
    if is_token_id(id) {
        Ok((user, id.to_owned()))
    } else {
        Err(fault(field, id, "is no id of a token; see the list of them"))
    }
}

fn is_token_id(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !id.is_empty() && id.len() <= TOKEN_ID_BYTES_MAX && id.bytes().all(plain)
}

/// Reads `joinTokens/{id}`; the answer is the id.
///
/// # Errors
/// Another form, or an id of other letters than `[A-Za-z0-9_-]`.
pub fn parse_join_token(field: &str, text: &str) -> Result<String, Violation> {
    let [id] = parts(field, text, ["joinTokens"], "joinTokens/{id}")?;
    if !is_token_id(id) {
        return Err(fault(field, id, "is no id of a join token; see the list of them"));
    }
    Ok(id.to_owned())
}

/// Reads `pushTokens/{id}`; the answer is the id.
///
/// # Errors
/// Another form, or an id of other letters than `[A-Za-z0-9_-]`.
pub fn parse_push_token(field: &str, text: &str) -> Result<String, Violation> {
    let [id] = parts(field, text, ["pushTokens"], "pushTokens/{id}")?;
    if !is_token_id(id) {
        return Err(fault(field, id, "is no id of a push token; see the list of them"));
    }
    Ok(id.to_owned())
}

/// Reads `housekeepingJobs/{job}`. Whether there is one of that name is not judged.
///
/// # Errors
/// Another form.
pub fn parse_housekeeping_job(field: &str, text: &str) -> Result<String, Violation> {
    let [job] = parts(field, text, ["housekeepingJobs"], "housekeepingJobs/{job}")?;
    parse_name(field, job).map(|job| job.to_string())
}

/// Reads a bare name, such as that of an agent that enrols.
///
/// # Errors
/// It is none.
pub fn parse_name(field: &str, text: &str) -> Result<Name, Violation> {
    text.parse().map_err(|bad| fault(field, text, bad))
}

/// Reads a UUID in its usual form.
///
/// # Errors
/// It is none.
pub fn parse_uuid(field: &str, text: &str) -> Result<uuid::Uuid, Violation> {
    // Other spellings of the same id would be other keys to whoever compares texts.
    match uuid::Uuid::try_parse(text) {
        Ok(id) if id.hyphenated().to_string() == text => Ok(id),
        _ => Err(fault(field, text, "is no UUID in lower case, as in 01a1f797-47f1-7c02-9d1f-8a3b6f20c1de")),
    }
}

/// Checks a request id; empty is none.
///
/// # Errors
/// Too long, or not printable ASCII.
pub fn parse_request_id(field: &str, text: &str) -> Result<Option<String>, Violation> {
    if text.len() > REQUEST_ID_CHARS_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        let rule = format!("must be at most {REQUEST_ID_CHARS_MAX} visible ASCII characters");
        return Err(fault(field, text, rule));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// The etag of a record at this revision.
#[must_use]
pub fn etag_of(revision: u64) -> String {
    revision.to_string()
}

/// The revision an etag stands for; an empty one stands for any.
///
/// # Errors
/// It was never an etag.
pub fn parse_etag(field: &str, etag: &str) -> Result<Option<u64>, Violation> {
    if etag.is_empty() {
        return Ok(None);
    }
    match etag.parse() {
        Ok(revision) if etag_of(revision) == etag => Ok(Some(revision)),
        _ => Err(fault(field, etag, "is no etag; send the one that was read, or none")),
    }
}

fn parse_run_ref(field: &str, text: &str) -> Result<RunRef, Violation> {
    if text == NEWEST {
        return Ok(RunRef::Newest);
    }
    parse_uuid(field, text).map(|id| RunRef::Id(RunId(id)))
}

/// The variable parts of a name of this form.
fn parts<'a, const N: usize>(
    field: &str,
    text: &'a str,
    collections: [&str; N],
    form: &str,
) -> Result<[&'a str; N], Violation> {
    let mut segments = text.split('/');
    let found = collections.map(|wanted| {
        let fits = segments.next() == Some(wanted);
        segments.next().filter(|part| fits && !part.is_empty())
    });
    let complete = found.iter().all(Option::is_some) && segments.next().is_none();
    if complete {
        Ok(found.map(Option::unwrap_or_default))
    } else {
        Err(fault(field, text, format!("write {form}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = "01a1f797-47f1-7c02-9d1f-8a3b6f20c1de";

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn run_id() -> RunId {
        RUN.parse().unwrap()
    }

    #[test]
    fn names_that_were_written_are_read() {
        let debian = name("debian");
        assert_eq!(parse_project("name", &project_name(&debian)), Ok(debian.clone()));
        assert_eq!(parse_agent("name", &agent_name(&debian)), Ok(debian.clone()));
        assert_eq!(parse_join_token("name", &join_token_name("a1-_Z")), Ok("a1-_Z".to_owned()));
        assert_eq!(parse_push_token("name", &push_token_name("a1-_Z")), Ok("a1-_Z".to_owned()));
        let backup = housekeeping_job_name("backup");
        assert_eq!(parse_housekeeping_job("name", &backup), Ok("backup".to_owned()));
        assert!(parse_housekeeping_job("name", "backup").is_err());
        let run = run_name(&debian, run_id());
        assert_eq!(parse_run("name", &run), Ok((debian.clone(), RunRef::Id(run_id()))));
        assert_eq!(parse_run("name", "projects/debian/runs/-"), Ok((debian.clone(), RunRef::Newest)));
        assert_eq!(parse_run_or_attempt("name", &run), Ok((debian.clone(), RunRef::Id(run_id()), None)));
        let attempt = attempt_name(&debian, AttemptId { run: run_id(), number: 12 });
        assert_eq!(parse_run_or_attempt("name", &attempt), Ok((debian, RunRef::Id(run_id()), Some(12))));
    }

    #[test]
    fn other_texts_are_told_the_form() {
        for bad in ["", "debian", "projects/", "projects", "project/debian", "projects/a/b", "/projects/a"] {
            let fault = parse_project("name", bad).unwrap_err();
            assert_eq!(fault.description, format!("\"{bad}\": write projects/{{project}}"));
        }
        let fault = parse_project("name", "projects/-e").unwrap_err();
        assert_eq!(
            fault.description,
            "\"-e\": only letters, digits and . _ + - (at most 63), the first one a letter or digit"
        );
        for bad in ["projects/a/runs", "projects/a/runs/x", "projects/a/runs/-/attempts/1"] {
            assert!(parse_run("name", bad).is_err(), "{bad}");
        }
        let upper = format!("projects/a/runs/{}", RUN.to_uppercase());
        assert!(parse_run("name", &upper).is_err());
        for bad in ["0", "01", "+1", "x", "", "4294967296", "1/2"] {
            let text = format!("projects/a/runs/-/attempts/{bad}");
            assert!(parse_run_or_attempt("name", &text).is_err(), "{bad}");
        }
        assert!(parse_join_token("name", "joinTokens/a b").is_err());
        assert!(parse_push_token("name", "joinTokens/ab").is_err());
    }

    #[test]
    fn users_and_their_tokens_are_named_and_local_root_is_no_user() {
        let maria = name("maria");
        assert_eq!(parse_user("name", &user_name("maria")), Ok(maria.clone()));
        let token = user_token_name(&maria, "0f3a");
        assert_eq!(parse_user_token("name", &token), Ok((maria, "0f3a".to_owned())));
        assert_eq!((user_name(LOCAL_ROOT).as_str(), user_name("").as_str()), ("local root", ""));
        assert_eq!(user_name(&push_token_name("0f3a")), "pushTokens/0f3a");
        for bad in ["users/", "users/local root", "users/a/tokens", "users/a/tokens/", "users/a/tokens/a b"] {
            assert!(parse_user("name", bad).is_err() && parse_user_token("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn upstreams_are_named_by_their_hosts() {
        for (text, host) in [
            ("upstreams/ftp.gnu.org", "ftp.gnu.org"),
            ("upstreams/192.0.2.7", "192.0.2.7"),
            ("upstreams/[2001:db8::1]", "[2001:db8::1]"),
        ] {
            assert_eq!(parse_upstream("name", text).as_deref(), Ok(host));
            assert_eq!(upstream_name(host), text);
        }
        for bad in [
            "upstreams/",
            "upstreams/a b",
            "upstreams/u@h",
            "upstreams/h:873",
            "upstreams/h:1",
            "upstreams/-h",
        ] {
            assert!(parse_upstream("name", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn etags_and_request_ids_are_read_strictly() {
        assert_eq!(parse_etag("etag", ""), Ok(None));
        assert_eq!(parse_etag("etag", &etag_of(7)), Ok(Some(7)));
        assert!(parse_etag("etag", "+7").is_err() && parse_etag("etag", "x").is_err());
        assert_eq!(parse_request_id("request_id", ""), Ok(None));
        assert_eq!(parse_request_id("request_id", "a-1"), Ok(Some("a-1".to_owned())));
        assert!(parse_request_id("request_id", &"x".repeat(65)).is_err());
        assert!(parse_request_id("request_id", "a b").is_err());
    }
}
