//! Flags of lists as the API's filters.

use crate::cli::ListArgs;
use crate::fault::Faults;
use crate::names;

/// A list filter from labels, `tier=1` as `labels.tier=1`, and a value that has blanks in quotes.
pub fn label_filter(labels: &[String], faults: &mut Faults) -> String {
    let mut terms = Vec::with_capacity(labels.len());
    for label in labels {
        match label.split_once('=') {
            Some((key, value)) if !key.is_empty() && !key.contains(is_special) => {
                terms.push(format!("labels.{key}={}", quoted(value)));
            }
            _ => faults.add("--label", format_args!("{label:?}: write KEY=VALUE")),
        }
    }
    terms.join(" ")
}

/// What has a meaning in a filter.
fn is_special(character: char) -> bool {
    character.is_whitespace() || character == '"'
}

/// A value as a filter has it.
fn quoted(value: &str) -> String {
    if !value.contains(is_special) {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The filter of a list of projects.
pub fn project_filter(args: &ListArgs, faults: &mut Faults) -> String {
    let mut terms = vec![label_filter(&args.labels, faults)];
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
    terms.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_filters() {
        let mut faults = Faults::default();
        let args = ListArgs {
            labels: vec!["tier=1".to_owned()],
            owner: Some(String::new()),
            agent: Some("ftp1".to_owned()),
            upstream: Some("dl.example.org".to_owned()),
            after: Some("debian".to_owned()),
            paused: true,
            archived: true,
            ..ListArgs::default()
        };
        let filter = project_filter(&args, &mut faults);
        assert_eq!(
            filter,
            "labels.tier=1 owner= agent=ftp1 after=debian upstream=dl.example.org paused=true archived=true"
        );
        assert!(faults.is_empty());
        assert_eq!(project_filter(&ListArgs::default(), &mut faults), "");
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
    fn label_filters() {
        let mut faults = Faults::default();
        let labels = ["tier=1".to_owned(), "role=edge".to_owned()];
        assert_eq!(label_filter(&labels, &mut faults), "labels.tier=1 labels.role=edge");
        let labels = ["site=north wing".to_owned(), "by=a \"b\\".to_owned(), "path=c\\d".to_owned()];
        assert_eq!(
            label_filter(&labels, &mut faults),
            r#"labels.site="north wing" labels.by="a \"b\\" labels.path=c\d"#
        );
        assert!(faults.is_empty());
        label_filter(&["tier".to_owned()], &mut faults);
        assert!(!faults.is_empty());
    }
}
