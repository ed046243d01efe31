//! The filter of ListProjects: exact matches, all of which must hold.

use fleet::{engine::Project, id::Name, refusal::Violation};

/// Longest filter, in characters.
const FILTER_CHARS_MAX: usize = 500;

/// What a project must fit.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Filter(Vec<Test>);

#[derive(Debug, PartialEq, Eq)]
enum Test {
    Label(String, String),
    Paused(bool),
    Owner(Option<Name>),
}

impl Filter {
    /// Reads `labels.tier=1 paused=true owner=maria`, with or without `AND` in between.
    pub(super) fn read(text: &str) -> Result<Self, Violation> {
        if text.chars().count() > FILTER_CHARS_MAX {
            let rule = format!("must not be longer than {FILTER_CHARS_MAX} characters");
            return Err(Violation::new("filter", rule));
        }
        let tests = text.split_whitespace().filter(|word| *word != "AND").map(Test::read);
        tests.collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn fits(&self, project: &Project) -> bool {
        self.0.iter().all(|test| match test {
            Test::Label(key, value) => project.record.spec.labels.get(key) == Some(value),
            Test::Paused(paused) => project.record.paused.is_some() == *paused,
            Test::Owner(owner) => project.record.spec.owner == *owner,
        })
    }
}

impl Test {
    fn read(word: &str) -> Result<Self, Violation> {
        let fault = |rule: &str| Violation::new("filter", format!("{word:?}: {rule}"));
        const RULE: &str = "filter by labels.KEY=VALUE, paused=true or owner=USER";
        match word.split_once('=') {
            Some(("owner", "")) => Ok(Self::Owner(None)),
            Some(("owner", user)) => {
                let name = user.strip_prefix("users/").unwrap_or(user).parse();
                name.map(|name| Self::Owner(Some(name))).map_err(|_| fault("owner is a user's name"))
            }
            Some(("paused", "true")) => Ok(Self::Paused(true)),
            Some(("paused", "false")) => Ok(Self::Paused(false)),
            Some(("paused", _)) => Err(fault("paused is true or false")),
            Some((key, value)) => match key.strip_prefix("labels.") {
                Some(label) if !label.is_empty() => Ok(Self::Label(label.to_owned(), value.to_owned())),
                Some(_) | None => Err(fault(RULE)),
            },
            None => Err(fault(RULE)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_anded_exact_matches() {
        let read = Filter::read("labels.tier=1 AND paused=false").unwrap();
        assert_eq!(read, Filter(vec![Test::Label("tier".into(), "1".into()), Test::Paused(false)]));
        assert_eq!(Filter::read("").unwrap(), Filter::default());
        let maria: Name = "maria".parse().unwrap();
        for (text, owner) in
            [("owner=maria", Some(maria.clone())), ("owner=users/maria", Some(maria)), ("owner=", None)]
        {
            assert_eq!(Filter::read(text).unwrap(), Filter(vec![Test::Owner(owner)]));
        }
        for bad in [
            "tier=1",
            "paused",
            "paused=maybe",
            "labels.=x",
            "labels.x",
            "owner=a b",
            "owner=a/b",
            &"x".repeat(501),
        ] {
            assert_eq!(Filter::read(bad).unwrap_err().field, "filter", "{bad:.20}");
        }
    }
}
