//! The filter of ListProjects: exact matches, all of which must hold; and the order in which it lists.

use std::collections::BTreeSet;

use fleet::{
    Engine,
    engine::Project,
    id::{AgentUid, Name, ProjectUid},
    refusal::Violation,
};

use crate::rpc::words;

/// Longest filter, in characters.
const FILTER_CHARS_MAX: usize = 500;
/// What a filter may say, for refusals.
const RULE: &str = "filter by labels.KEY=VALUE, owner=USER, agent=AGENT, upstream=HOST, after=PROJECT, paused=true or \
                    archived=false";

/// What a project must fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter(Vec<Test>);

#[derive(Debug, PartialEq, Eq)]
enum Test {
    Label(String, String),
    Paused(bool),
    Archived(bool),
    Owner(Option<Name>),
    Agent(Name),
    Upstream(String),
    After(Name),
}

/// A filter with its names looked up in one view.
#[derive(Debug)]
pub(super) struct Tests<'a> {
    filter: &'a Filter,
    /// The agents that it names; one that is not there has no placement.
    agents: BTreeSet<Option<AgentUid>>,
    /// The projects that it names; nothing runs after one that is not there.
    before: BTreeSet<Option<ProjectUid>>,
}

impl Filter {
    /// Reads `labels.tier=1 paused=true owner=maria`, with or without `AND` in between.
    pub(super) fn read(text: &str) -> Result<Self, Vec<Violation>> {
        if text.chars().count() > FILTER_CHARS_MAX {
            let rule = format!("must not be longer than {FILTER_CHARS_MAX} characters");
            return Err(vec![Violation::new("filter", rule)]);
        }
        let (mut tests, mut faults) = (Vec::new(), Vec::new());
        let words =
            words::split(text).map_err(|rule| vec![Violation::new("filter", format!("{text:?}: {rule}"))])?;
        for word in words.iter().filter(|word| *word != "AND") {
            match Test::read(word) {
                Ok(test) => tests.push(test),
                Err(rule) => faults.push(Violation::new("filter", format!("{word:?}: {rule}"))),
            }
        }
        if faults.is_empty() { Ok(Self(tests)) } else { Err(faults) }
    }

    /// The filter for the projects of this view.
    pub(super) fn on(&self, view: &Engine) -> Tests<'_> {
        let agents = self.0.iter().filter_map(|test| match test {
            Test::Agent(name) => Some(view.agent_named(name).map(|agent| agent.uid)),
            _ => None,
        });
        let before = self.0.iter().filter_map(|test| match test {
            Test::After(name) => Some(view.project_named(name).map(|project| project.record.uid)),
            _ => None,
        });
        Tests { filter: self, agents: agents.collect(), before: before.collect() }
    }
}

impl Tests<'_> {
    pub(super) fn fits(&self, project: &Project) -> bool {
        let spec = &project.record.spec;
        let placed =
            |agent: &Option<AgentUid>| agent.is_some_and(|uid| project.placements.contains_key(&uid));
        let follows = |before: &Option<ProjectUid>| before.is_some_and(|uid| spec.after.contains(&uid));
        self.agents.iter().all(placed)
            && self.before.iter().all(follows)
            && self.filter.0.iter().all(|test| match test {
                Test::Label(key, value) => spec.labels.get(key) == Some(value),
                Test::Paused(paused) => project.record.paused.is_some() == *paused,
                Test::Archived(archived) => project.record.archived.is_some() == *archived,
                Test::Owner(owner) => spec.owner == *owner,
                Test::Upstream(host) => spec.upstreams.iter().any(|one| one.host.eq_ignore_ascii_case(host)),
                // Looked up, above.
                Test::Agent(_) | Test::After(_) => true,
            })
    }
}

impl Test {
    fn read(word: &str) -> Result<Self, &'static str> {
        let name = |text: &str, kind: &str, rule: &'static str| {
            text.strip_prefix(kind).unwrap_or(text).parse::<Name>().map_err(|_| rule)
        };
        let (key, value) = word.split_once('=').ok_or(RULE)?;
        match key {
            "owner" if value.is_empty() => Ok(Self::Owner(None)),
            "owner" => name(value, "users/", "owner is a user's name").map(|name| Self::Owner(Some(name))),
            "agent" => name(value, "agents/", "agent is an agent's name").map(Self::Agent),
            "after" => name(value, "projects/", "after is a project's name").map(Self::After),
            "upstream" if value.is_empty() => Err("upstream is a host"),
            "upstream" => Ok(Self::Upstream(value.strip_prefix("upstreams/").unwrap_or(value).to_owned())),
            "paused" => value.parse().map(Self::Paused).map_err(|_| "paused is true or false"),
            "archived" => value.parse().map(Self::Archived).map_err(|_| "archived is true or false"),
            key => match key.strip_prefix("labels.") {
                Some(label) if !label.is_empty() => Ok(Self::Label(label.to_owned(), value.to_owned())),
                Some(_) | None => Err(RULE),
            },
        }
    }
}

/// In which order projects are listed: the key's, which is what the view has them by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    Rising,
    Falling,
}

impl Order {
    /// Reads `name` or `name desc`; empty: `name`.
    pub(super) fn read(text: &str) -> Result<Self, Violation> {
        match text.split_whitespace().collect::<Vec<_>>()[..] {
            [] | ["name"] | ["name", "asc"] => Ok(Self::Rising),
            ["name", "desc"] => Ok(Self::Falling),
            _ => Err(Violation::new("order_by", format!("{text:?}: order by name, or by name desc"))),
        }
    }

    /// The projects behind this one in the order.
    pub(super) fn rows<'a>(
        self,
        view: &'a Engine,
        behind: Option<&Name>,
    ) -> Box<dyn Iterator<Item = &'a Project> + 'a> {
        match self {
            Self::Rising => Box::new(view.projects_after(behind)),
            Self::Falling => Box::new(view.projects_before(behind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_anded_exact_matches() {
        let read = Filter::read("labels.tier=1 AND paused=false archived=true").unwrap();
        let tier = Test::Label("tier".into(), "1".into());
        assert_eq!(read, Filter(vec![tier, Test::Paused(false), Test::Archived(true)]));
        assert_eq!(Filter::read("").unwrap(), Filter::default());
        let name = |text: &str| -> Name { text.parse().unwrap() };
        for (text, test) in [
            ("owner=maria", Test::Owner(Some(name("maria")))),
            ("owner=users/maria", Test::Owner(Some(name("maria")))),
            ("owner=", Test::Owner(None)),
            ("agent=agents/ftp1", Test::Agent(name("ftp1"))),
            ("after=debian", Test::After(name("debian"))),
            ("upstream=upstreams/[::1]", Test::Upstream("[::1]".to_owned())),
        ] {
            assert_eq!(Filter::read(text).unwrap(), Filter(vec![test]));
        }
        for bad in [
            "tier=1",
            "paused",
            "paused=maybe",
            "archived=1",
            "labels.=x",
            "labels.x",
            "owner=a b",
            "owner=a/b",
            "agent=",
            "upstream=",
            "after=a/b",
            &"x".repeat(501),
        ] {
            assert_eq!(Filter::read(bad).unwrap_err()[0].field, "filter", "{bad:.20}");
        }
        // All faults at once.
        assert_eq!(Filter::read("tier=1 owner=a/b paused=true").unwrap_err().len(), 2);
    }

    #[test]
    fn the_order_is_the_keys() {
        for (text, order) in [("", Order::Rising), ("name", Order::Rising), (" name  desc", Order::Falling)] {
            assert_eq!(Order::read(text), Ok(order));
        }
        for bad in ["lag", "name down", "name desc, owner"] {
            assert_eq!(Order::read(bad).unwrap_err().field, "order_by");
        }
    }
}
