//! Pages of agents: which ones, and in which order.

use ::fleet::{Engine, agent::AgentRecord, id::Name, refusal::Violation};
use mirror_proto::v1;
use tonic::{Response, Status};

use super::{Agents, show};
use crate::rpc::{invalid, page, words};

/// Agents on a page when the caller names no number.
const PAGE_SIZE: usize = 100;
/// Longest filter, in characters.
const FILTER_CHARS_MAX: usize = 500;

impl Agents {
    #[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
    pub(super) fn list(
        &self,
        request: &v1::ListAgentsRequest,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let v1::ListAgentsRequest { page_size, page_token, filter, order_by } = request;
        let list = format!("agents {filter} {order_by}");
        let page = page::read(&list, *page_size, page_token, PAGE_SIZE);
        let (page, filter, order) = match (page, Filter::read(filter), Order::read(order_by)) {
            (Ok(page), Ok(filter), Ok(order)) => (page, filter, order),
            (page, filter, order) => {
                let faults = page.err().into_iter().flatten().chain(filter.err()).chain(order.err());
                return Err(invalid("agents not listed", faults.collect()));
            }
        };
        let view = self.services.driver.view();
        let after: Option<Name> = page.after.as_deref().and_then(|after| after.parse().ok());
        let is_next = |agent: &&AgentRecord| match (&after, order) {
            (None, _) => true,
            (Some(after), Order::Up) => agent.name > *after,
            (Some(after), Order::Down) => agent.name < *after,
        };
        let mut rows: Vec<&AgentRecord> =
            view.agents_by_name().filter(is_next).filter(|agent| filter.fits(&view, agent)).collect();
        if order == Order::Down {
            rows.reverse();
        }
        let (agents, next_page_token) =
            page::cut(&list, &page, rows.into_iter(), |agent| agent.name.to_string());
        let shown = |agent: &AgentRecord| self.with_hosts(show(&view, agent), &view, agent.uid);
        let agents = agents.into_iter().map(shown).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents, next_page_token }))
    }
}

/// The order of a list: by the key that it is stored by, up or down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Up,
    Down,
}

impl Order {
    fn read(text: &str) -> Result<Self, Violation> {
        match text {
            "" | "name" | "name asc" => Ok(Self::Up),
            "name desc" => Ok(Self::Down),
            other => Err(Violation::new("order_by", format!("{other:?}: write name, or name desc"))),
        }
    }
}

/// Which agents are listed: exact matches, all of which must hold.
#[derive(Debug, Default, PartialEq, Eq)]
struct Filter(Vec<Test>);

#[derive(Debug, PartialEq, Eq)]
enum Test {
    Label(String, String),
    Connected(bool),
    Draining(bool),
    Revoked(bool),
    DeclaredOnly(bool),
}

impl Filter {
    /// Reads `labels.role=edge connected=true`, with or without `AND` in between.
    fn read(text: &str) -> Result<Self, Violation> {
        let fault = |rule: String| Violation::new("filter", rule);
        if text.chars().count() > FILTER_CHARS_MAX {
            return Err(fault(format!("must not be longer than {FILTER_CHARS_MAX} characters")));
        }
        let words = words::split(text).map_err(|rule| fault(format!("{text:?}: {rule}")))?;
        let tests = words.iter().map(String::as_str).filter(|word| *word != "AND").map(|word| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let truth = || match value {
                "true" => Ok(true),
                "false" => Ok(false),
                _ => Err(fault(format!("{word:?}: {key} is true or false"))),
            };
            match (key, key.strip_prefix("labels.")) {
                ("connected", _) => truth().map(Test::Connected),
                ("draining", _) => truth().map(Test::Draining),
                ("revoked", _) => truth().map(Test::Revoked),
                ("declared_only", _) => truth().map(Test::DeclaredOnly),
                (_, Some(label)) if !label.is_empty() && word.contains('=') => {
                    Ok(Test::Label(label.to_owned(), value.to_owned()))
                }
                _ => Err(fault(format!(
                    "{word:?}: write labels.KEY=VALUE, connected=true, draining=true, revoked=true or declared_only=true, all of \
                     which must hold"
                ))),
            }
        });
        tests.collect::<Result<_, _>>().map(Self)
    }

    fn fits(&self, view: &Engine, agent: &AgentRecord) -> bool {
        self.0.iter().all(|test| match test {
            Test::Label(key, value) => agent.labels.get(key) == Some(value),
            Test::Connected(wanted) => view.session(agent.uid).is_some() == *wanted,
            Test::Draining(wanted) => agent.draining == *wanted,
            Test::Revoked(wanted) => agent.revoked.is_some() == *wanted,
            Test::DeclaredOnly(wanted) => agent.is_declared_only() == *wanted,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_ordered_by_name_up_or_down() {
        assert_eq!(
            [Order::read(""), Order::read("name"), Order::read("name asc")],
            [(); 3].map(|()| Ok(Order::Up))
        );
        assert_eq!(Order::read("name desc"), Ok(Order::Down));
        for bad in ["seen_time", "name down", "name desc,seen_time", "NAME"] {
            assert_eq!(Order::read(bad).unwrap_err().field, "order_by", "{bad}");
        }
    }

    #[test]
    fn filters_are_anded_exact_matches() {
        let read = Filter::read("labels.role=edge AND connected=true revoked=false").unwrap();
        let label = Test::Label("role".to_owned(), "edge".to_owned());
        assert_eq!(read, Filter(vec![label, Test::Connected(true), Test::Revoked(false)]));
        assert_eq!(Filter::read("").unwrap(), Filter::default());
        let label = Test::Label("site".to_owned(), "north wing".to_owned());
        assert_eq!(Filter::read("labels.site=\"north wing\"").unwrap(), Filter(vec![label]));
        for bad in [
            "role=edge",
            "connected",
            "connected=maybe",
            "labels.=x",
            "labels.x",
            "a b",
            "labels.x=\"a b",
            &"x".repeat(501),
        ] {
            assert_eq!(Filter::read(bad).unwrap_err().field, "filter", "{bad:.20}");
        }
    }
}
