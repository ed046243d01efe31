//! Filter rules: one action and one pattern. Merge files, modifiers and list-clearing are refused: the first read
//! files of the agent's host, the others change what a rule means. Does NOT match names; rsync does.

use std::fmt;

/// Longest pattern, bytes.
pub const PATTERN_BYTES_MAX: usize = 1024;

/// What a rule does with names that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// `-`: neither copied nor deleted here.
    Exclude,
    /// `+`: copied.
    Include,
    /// `P`: never deleted here.
    Protect,
    /// `R`: may be deleted here.
    Risk,
    /// `H`: not copied.
    Hide,
    /// `S`: copied.
    Show,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 6] =
        [Self::Exclude, Self::Include, Self::Protect, Self::Risk, Self::Hide, Self::Show];

    /// The letter in a rule.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::Exclude => '-',
            Self::Include => '+',
            Self::Protect => 'P',
            Self::Risk => 'R',
            Self::Hide => 'H',
            Self::Show => 'S',
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Exclude => "exclude",
            Self::Include => "include",
            Self::Protect => "protect",
            Self::Risk => "risk",
            Self::Hide => "hide",
            Self::Show => "show",
        }
    }
}

/// One filter rule. `Display` is rsync's `--filter` text, `- PATTERN`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    action: Action,
    pattern: String,
}

impl Rule {
    /// Makes a rule of a pattern.
    ///
    /// # Errors
    /// The reason against the pattern: empty, longer than [`PATTERN_BYTES_MAX`], with control characters, or with a
    /// beginning (`! `, `+ `, `- `) that rsync's old syntax reads as something else.
    pub fn new(action: Action, pattern: &str) -> Result<Self, String> {
        if pattern.is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(format!("the pattern is longer than {PATTERN_BYTES_MAX} bytes"));
        }
        if pattern.chars().any(char::is_control) {
            return Err("the pattern holds a control character".to_owned());
        }
        if pattern.starts_with('!') {
            return Err("a pattern that starts with ! clears the list of rules; write [!] for the character"
                .to_owned());
        }
        if pattern.starts_with("+ ") || pattern.starts_with("- ") {
            return Err("the pattern starts like a rule; use --include= or --exclude= without it".to_owned());
        }
        Ok(Self { action, pattern: pattern.to_owned() })
    }

    /// Reads the text of `--filter=`: `- PATTERN`, `protect PATTERN` and the like, one space between.
    ///
    /// # Errors
    /// The reason against it; merge files, clearing and modifiers have their own.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(reason) = why_kind_refused(text) {
            return Err(reason.to_owned());
        }
        let (head, pattern) = text.split_once(' ').unwrap_or((text, ""));
        let action = Action::ALL.into_iter().find(|a| head == a.name() || head.chars().eq([a.letter()]));
        match action {
            Some(action) => Self::new(action, pattern),
            None => {
                Err("write one of - + P R H S (exclude include protect risk hide show), one space and a \
                         pattern; modifiers are not accepted"
                    .to_owned())
            }
        }
    }

    /// What it does.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// The pattern, as rsync matches it.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The canonical option word.
    pub(crate) fn word(&self) -> String {
        match self.action {
            Action::Exclude => format!("--exclude={}", self.pattern),
            Action::Include => format!("--include={}", self.pattern),
            _ => format!("--filter={self}"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action.letter(), self.pattern)
    }
}

/// Rules that are refused for what they are. rsync also takes `.` and `:` with the file name right behind them.
fn why_kind_refused(text: &str) -> Option<&'static str> {
    let kind = text.split([' ', ',', '_']).next().unwrap_or_default();
    if text.starts_with(['.', ':']) || matches!(kind, "merge" | "dir-merge") {
        return Some("merge rules read a file of the agent's host or of the upstream's choice");
    }
    (text.starts_with('!') || kind == "clear")
        .then_some("clears the list of rules; leave the rules out instead")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules() {
        for (text, action, pattern) in [
            ("- a", Action::Exclude, "a"),
            ("+ /dists/**", Action::Include, "/dists/**"),
            ("exclude a b ", Action::Exclude, "a b "),
            ("include *.diff/", Action::Include, "*.diff/"),
            ("P keep/", Action::Protect, "keep/"),
            ("risk x", Action::Risk, "x"),
            ("H x", Action::Hide, "x"),
            ("show x", Action::Show, "x"),
            ("-  lead", Action::Exclude, " lead"),
            ("- -x", Action::Exclude, "-x"),
        ] {
            let rule = Rule::parse(text).unwrap_or_else(|reason| panic!("{text}: {reason}"));
            assert_eq!((rule.action(), rule.pattern()), (action, pattern), "{text}");
            assert_eq!(Rule::parse(&rule.to_string()), Ok(rule));
        }
    }

    #[test]
    fn refusals() {
        for (text, reason) in [
            (". /etc/shadow", "merge"),
            ("./etc/shadow", "merge"),
            (":x", "merge"),
            (":- .rsync-filter", "merge"),
            ("merge /etc/shadow", "merge"),
            ("merge,- /etc/shadow", "merge"),
            ("dir-merge x", "merge"),
            ("dir-merge,ew x", "merge"),
            ("merge_/etc/shadow", "merge"),
            ("!", "clears"),
            ("clear", "clears"),
            ("clear,x", "clears"),
            ("- !x", "clears"),
            ("-! x", "modifiers"),
            ("-/ x", "modifiers"),
            ("-C", "modifiers"),
            ("-s x", "modifiers"),
            ("exclude,p x", "modifiers"),
            ("-_x", "modifiers"),
            ("-x", "modifiers"),
            ("", "modifiers"),
            ("x", "modifiers"),
            ("-", "empty"),
            ("- ", "empty"),
            ("- - x", "starts like a rule"),
            ("- + x", "starts like a rule"),
            ("- a\u{1b}", "control"),
        ] {
            let refused = Rule::parse(text).expect_err(text);
            assert!(refused.contains(reason), "{text}: {refused}");
        }
        assert!(Rule::new(Action::Exclude, &"x".repeat(PATTERN_BYTES_MAX + 1)).is_err());
    }
}
