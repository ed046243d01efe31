//! Flags of lists as the API's filters.

use super::Selector;
use crate::cli::{AgentListArgs, ListArgs};
use crate::fault::Faults;
use crate::names;

/// The filter of a list of projects, as far as the API has one, and the selector that has the rest.
pub fn project_filter(args: &ListArgs, faults: &mut Faults) -> (String, Selector) {
    let selector = Selector::read(&args.selector.terms, faults);
    let mut terms = vec![selector.filter()];
    let mut named = |key: &str, flag: &str, name: &Option<String>, may_be_empty: bool| {
        let Some(name) = name else { return };
        if !(may_be_empty && name.is_empty()) {
            names::check_name(flag, name, faults);
        }
        terms.push(format!("{key}={name}"));
    };
    named("owner", "--owner", &args.owner, true);
    named("agent", "--agent", &args.agent, false);
    named("after", "--after", &args.after, false);
    if let Some(host) = &args.upstream {
        if host.is_empty() || host.contains(char::is_whitespace) {
            faults.add("--upstream", format_args!("{host:?}: a host without blanks"));
        }
        terms.push(format!("upstream={host}"));
    }
    terms.extend(args.paused.then(|| "paused=true".to_owned()));
    terms.extend(args.archived.then(|| "archived=true".to_owned()));
    terms.retain(|term| !term.is_empty());
    (terms.join(" "), selector)
}

/// The filter of a list of agents, likewise.
pub fn agent_filter(args: &AgentListArgs, faults: &mut Faults) -> (String, Selector) {
    let selector = Selector::read(&args.selector.terms, faults);
    let mut terms = vec![selector.filter()];
    let states = [
        ("connected", args.connected),
        ("draining", args.draining),
        ("revoked", args.revoked),
        ("declared_only", args.declared_only),
    ];
    terms.extend(states.into_iter().filter_map(|(key, wanted)| Some(format!("{key}={}", wanted?))));
    terms.retain(|term| !term.is_empty());
    (terms.join(" "), selector)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::SelectorArg;

    #[test]
    fn list_filters() {
        let mut faults = Faults::default();
        let args = ListArgs {
            selector: SelectorArg { terms: vec!["tier=1,site!=north".to_owned()] },
            owner: Some(String::new()),
            agent: Some("ftp1".to_owned()),
            upstream: Some("dl.example.org".to_owned()),
            after: Some("debian".to_owned()),
            paused: true,
            archived: true,
            ..ListArgs::default()
        };
        let (filter, selector) = project_filter(&args, &mut faults);
        assert_eq!(
            filter,
            "labels.tier=1 owner= agent=ftp1 after=debian upstream=dl.example.org paused=true archived=true"
        );
        assert!(faults.is_empty() && !selector.fits(&[("tier".to_owned(), "2".to_owned())].into()));
        assert_eq!(project_filter(&ListArgs::default(), &mut faults), (String::new(), Selector::default()));
        let bad = ListArgs {
            agent: Some("f tp".to_owned()),
            after: Some(String::new()),
            upstream: Some("a b".to_owned()),
            ..ListArgs::default()
        };
        project_filter(&bad, &mut faults);
        let fault = faults.finish("x", "y").unwrap_err();
        let flags: Vec<&str> = fault.details.iter().map(|(flag, _)| flag.as_str()).collect();
        assert_eq!(flags, ["--agent", "--after", "--upstream"]);
    }

    #[test]
    fn agent_filters() {
        let mut faults = Faults::default();
        let args = AgentListArgs {
            selector: SelectorArg { terms: vec!["role=edge".to_owned()] },
            connected: Some(false),
            draining: Some(true),
            revoked: Some(false),
            declared_only: Some(true),
            reverse: true,
        };
        let filter = agent_filter(&args, &mut faults).0;
        assert_eq!(filter, "labels.role=edge connected=false draining=true revoked=false declared_only=true");
        assert_eq!(agent_filter(&AgentListArgs::default(), &mut faults).0, "");
        assert!(faults.is_empty());
    }
}
