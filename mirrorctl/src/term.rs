//! What the terminal can do: width, colour, signs, and whether there is one. Knows nothing of what is printed.

use std::io::IsTerminal as _;

use chrono::{DateTime, Utc};
use clap::ValueEnum;

/// Width of what is not a terminal, and of the samples.
pub const WIDTH_DEFAULT: usize = 80;
/// Sentences are wrapped at this width at most.
pub const SENTENCE_WIDTH_MAX: usize = 100;
/// Narrower terminals are treated as this wide: below it nothing fits anyway.
const WIDTH_MIN: usize = 40;

/// When colours are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    /// On a terminal, unless NO_COLOR is set or TERM is dumb.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// One of the eight ANSI colours that we use. A colour only repeats what a word says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// Good.
    Green,
    /// Needs attention.
    Yellow,
    /// Bad.
    Red,
    /// Held.
    Magenta,
    /// At work.
    Blue,
}

impl Color {
    const fn code(self) -> u8 {
        match self {
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Blue => 34,
            Self::Magenta => 35,
        }
    }
}

/// Whether a text begins with the sequence of one of the colours.
#[must_use]
pub fn begins_with_color(text: &str) -> bool {
    let all = [Color::Green, Color::Yellow, Color::Red, Color::Magenta, Color::Blue];
    all.iter().any(|color| text.starts_with(&format!("\x1b[{}m", color.code())))
}

/// A sign that repeats a state's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// `✓`
    Good,
    /// `!`
    Warning,
    /// `✗`
    Bad,
    /// `‖`
    Held,
    /// `▶`
    Running,
}

/// How text is to be laid out now, for one output stream.
#[derive(Clone, Debug)]
pub struct View {
    /// The present: ages count from it.
    pub now: DateTime<Utc>,
    /// Columns.
    pub width: usize,
    /// Colours.
    pub color: bool,
    /// Signs outside of ASCII.
    pub unicode: bool,
    /// RFC 3339 instead of ages in tables.
    pub absolute: bool,
    /// All columns.
    pub wide: bool,
    /// A person looks at it: the last free-text column may be cut. Piped output never is.
    pub terminal: bool,
}

impl View {
    /// The look of standard output now.
    #[must_use]
    pub fn stdout(now: DateTime<Utc>, choice: ColorChoice, absolute: bool, wide: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let dumb = is_dumb();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color = match choice {
            ColorChoice::Always => true,
            ColorChoice::Never => false,
            ColorChoice::Auto => terminal && !dumb && !no_color,
        };
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .filter_map(|name| std::env::var(name).ok())
            .find(|value| !value.is_empty());
        Self {
            now,
            width: if terminal { terminal_width() } else { WIDTH_DEFAULT },
            color,
            unicode: is_utf8(locale.as_deref()),
            absolute,
            wide,
            terminal,
        }
    }

    /// A state's sign.
    #[must_use]
    pub const fn sign(&self, sign: Sign) -> &'static str {
        match (sign, self.unicode) {
            (Sign::Good, true) => "✓",
            (Sign::Good, false) => "ok",
            (Sign::Warning, _) => "!",
            (Sign::Bad, true) => "✗",
            (Sign::Bad, false) => "X",
            (Sign::Held, true) => "‖",
            (Sign::Held, false) => "H",
            (Sign::Running, true) => "▶",
            (Sign::Running, false) => ">",
        }
    }

    /// What stands for text that was cut off.
    #[must_use]
    pub const fn ellipsis(&self) -> &'static str {
        if self.unicode { "…" } else { "..." }
    }

    /// Text in a colour, where colours are on.
    #[must_use]
    pub fn paint(&self, color: Option<Color>, text: &str) -> String {
        match color {
            Some(color) if self.color => format!("\x1b[{}m{text}\x1b[0m", color.code()),
            _ => text.to_owned(),
        }
    }

    /// The width of sentences.
    #[must_use]
    pub fn sentence_width(&self) -> usize {
        self.width.min(SENTENCE_WIDTH_MAX)
    }

    /// A sentence, wrapped on a terminal; continued with `indent` blanks.
    #[must_use]
    pub fn wrap(&self, text: &str, indent: usize) -> String {
        if self.terminal { wrap(text, self.sentence_width(), indent) } else { text.to_owned() }
    }

    /// As [`View::wrap`], for a line whose first `indent` columns are a label that stays as it is.
    #[must_use]
    pub fn wrap_keeping(&self, line: &str, indent: usize) -> String {
        let split = line.char_indices().nth(indent).map_or(line.len(), |(index, _)| index);
        let (label, text) = line.split_at(split);
        let width = self.sentence_width().saturating_sub(indent);
        if !self.terminal || text.chars().count() <= width {
            return line.trim_end().to_owned();
        }
        let folded = wrap(text, width, 0).replace('\n', &format!("\n{}", " ".repeat(indent)));
        format!("{label}{folded}")
    }
}

/// Breaks text at blanks so that no line is longer than `width`, as far as words allow. Lines after the first begin
/// with `indent` blanks.
#[must_use]
pub fn wrap(text: &str, width: usize, indent: usize) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    let mut column = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            column = indent;
        } else if column > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    out
}

/// Whether the terminal can neither colour nor move its cursor.
#[must_use]
pub fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}

/// Whether a locale's name says UTF-8. No locale at all is the C locale: ASCII.
fn is_utf8(locale: Option<&str>) -> bool {
    locale.is_some_and(|name| {
        let name = name.to_ascii_lowercase();
        name.contains("utf-8") || name.contains("utf8")
    })
}

/// What COLUMNS says, where a person set it; otherwise what the terminal says, where it knows.
fn terminal_width() -> usize {
    let told = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse::<u16>().ok());
    let size = rustix::termios::tcgetwinsize(rustix::stdio::stdout());
    let columns = told.or_else(|| size.ok().map(|size| size.ws_col)).filter(|columns| *columns > 0);
    columns.map_or(WIDTH_DEFAULT, |columns| usize::from(columns).max(WIDTH_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_wrap_at_blanks() {
        assert_eq!(wrap("one two three", 8, 2), "one two\n  three");
        assert_eq!(wrap("a-word-that-is-too-long x", 8, 2), "a-word-that-is-too-long\n  x");
        assert_eq!(wrap("", 8, 2), "");
    }

    #[test]
    fn locales() {
        assert!(is_utf8(Some("en_US.UTF-8")) && is_utf8(Some("C.utf8")));
        assert!(!is_utf8(Some("C")) && !is_utf8(Some("POSIX")) && !is_utf8(None));
    }
}
