//! The little of a shell's language that crontab lines of rsync use: words, quotes, `$NAME`, redirections, and several
//! commands in one line. Runs nothing and expands no file names; what it does not know it says.

use std::collections::BTreeMap;

/// Most bytes that one line may grow to when its variables are put in.
pub(super) const EXPANDED_BYTES_MAX: usize = 64 * 1_024;

/// One command of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Command {
    /// The words, `NAME=value` ones in front included.
    pub(super) words: Vec<String>,
    /// Whether its input is what another command prints, or its output goes into one.
    pub(super) is_piped: bool,
}

/// A line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// In the order in which they stand.
    pub(super) commands: Vec<Command>,
    /// Whether the output goes into files.
    pub(super) is_redirected: bool,
    /// Whether the input comes from a file.
    pub(super) reads_file: bool,
}

/// Takes a line apart.
///
/// # Errors
/// What it holds that only a shell can do, as the end of a sentence that begins with "it".
pub(super) fn line(text: &str, variables: &BTreeMap<String, String>) -> Result<Line, String> {
    let mut reader = Reader {
        text: text.chars().peekable(),
        variables,
        line: Line::default(),
        word: None,
        expanded: 0,
        target: None,
    };
    reader.read()?;
    Ok(reader.line)
}

/// The words of a text that is one command.
///
/// # Errors
/// As [`line`], and where it is not one command.
pub(super) fn words(text: &str) -> Result<Vec<String>, String> {
    let mut line = line(text, &BTreeMap::new())?;
    match (line.commands.len(), line.is_redirected || line.reads_file) {
        (0, false) => Ok(Vec::new()),
        (1, false) => Ok(line.commands.remove(0).words),
        _ => Err("holds several commands or a redirection".to_owned()),
    }
}

/// The program of a command, for a message: what is set in front of it and its arguments may be secrets.
pub(super) fn program<'a>(words: impl IntoIterator<Item = &'a str>) -> &'a str {
    let sets = |word: &&str| {
        word.split_once('=').is_some_and(|(name, _)| {
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+\"'".contains(&byte))
        })
    };
    let program = words.into_iter().find(|word| !sets(word)).unwrap_or_default();
    program.split(|c: char| c.is_whitespace() || c == '=').next().unwrap_or_default()
}

/// What the next word is, where it is no word of a command.
enum Target {
    Output,
    Input,
}

struct Reader<'a> {
    text: std::iter::Peekable<std::str::Chars<'a>>,
    variables: &'a BTreeMap<String, String>,
    line: Line,
    word: Option<String>,
    expanded: usize,
    target: Option<Target>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), String> {
        self.line.commands.push(Command::default());
        while let Some(next) = self.text.next() {
            match next {
                '\'' => self.quoted()?,
                '"' => self.double_quoted()?,
                '\\' => {
                    if let Some(escaped) = self.text.next() {
                        self.push(escaped)?;
                    }
                }
                '$' => self.variable(false)?,
                '`' => return Err("runs a command in the midst of its words".to_owned()),
                '(' | ')' => return Err("holds a subshell".to_owned()),
                '#' if self.word.is_none() => break,
                ' ' | '\t' | '\r' => self.end_word(),
                '\n' | ';' => self.end_command(false),
                '&' => self.ampersand(),
                '|' => {
                    let is_or = self.text.next_if_eq(&'|').is_some();
                    self.end_command(!is_or);
                }
                '>' => self.redirect(Target::Output),
                '<' => self.redirect(Target::Input),
                other => self.push(other)?,
            }
        }
        self.end_command(false);
        self.line.commands.retain(|command| !command.words.is_empty());
        Ok(())
    }

    fn push(&mut self, character: char) -> Result<(), String> {
        self.expanded += character.len_utf8();
        if self.expanded > EXPANDED_BYTES_MAX {
            return Err(format!("is longer than {EXPANDED_BYTES_MAX} bytes"));
        }
        self.word.get_or_insert_default().push(character);
        Ok(())
    }

    fn quoted(&mut self) -> Result<(), String> {
        self.word.get_or_insert_default();
        loop {
            match self.text.next() {
                Some('\'') => return Ok(()),
                Some(other) => self.push(other)?,
                None => return Err("holds a quote that is not closed".to_owned()),
            }
        }
    }

    fn double_quoted(&mut self) -> Result<(), String> {
        self.word.get_or_insert_default();
        loop {
            match self.text.next() {
                Some('"') => return Ok(()),
                Some('$') => self.variable(true)?,
                Some('`') => return Err("runs a command in the midst of its words".to_owned()),
                Some('\\') => match self.text.next() {
                    Some(escaped @ ('"' | '\\' | '$' | '`')) => self.push(escaped)?,
                    Some(other) => {
                        self.push('\\')?;
                        self.push(other)?;
                    }
                    None => return Err("holds a quote that is not closed".to_owned()),
                },
                Some(other) => self.push(other)?,
                None => return Err("holds a quote that is not closed".to_owned()),
            }
        }
    }

    /// Without quotes around it the value is words of its own.
    fn variable(&mut self, quoted: bool) -> Result<(), String> {
        if self.text.peek() == Some(&'(') {
            return Err("runs a command in the midst of its words".to_owned());
        }
        let braced = self.text.next_if_eq(&'{').is_some();
        let mut name = String::new();
        while let Some(letter) = self.text.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(letter);
        }
        if braced && (self.text.next_if_eq(&'}').is_none() || name.is_empty()) {
            return Err("computes a variable's value".to_owned());
        }
        if name.is_empty() {
            return self.push('$');
        }
        let Some(value) = self.variables.get(&name) else {
            return Err(format!("uses the variable {name}, which has no value here"));
        };
        for character in value.clone().chars() {
            if character.is_whitespace() && !quoted {
                self.end_word();
            } else {
                self.push(character)?;
            }
        }
        Ok(())
    }

    fn ampersand(&mut self) {
        if self.text.next_if_eq(&'>').is_some() {
            self.end_word();
            self.text.next_if_eq(&'>');
            self.line.is_redirected = true;
            self.target = Some(Target::Output);
        } else {
            self.text.next_if_eq(&'&');
            self.end_command(false);
        }
    }

    fn redirect(&mut self, target: Target) {
        // The number of what is redirected stands right before it.
        if self.word.as_ref().is_some_and(|word| word.bytes().all(|byte| byte.is_ascii_digit())) {
            self.word = None;
        }
        self.end_word();
        while self.text.next_if(|next| matches!(next, '>' | '<' | '|' | '&')).is_some() {}
        match target {
            Target::Output => self.line.is_redirected = true,
            Target::Input => self.line.reads_file = true,
        }
        self.target = Some(target);
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        if self.target.take().is_none()
            && let Some(command) = self.line.commands.last_mut()
        {
            command.words.push(word);
        }
    }

    fn end_command(&mut self, piped: bool) {
        self.end_word();
        self.target = None;
        if let Some(command) = self.line.commands.last_mut() {
            command.is_piped |= piped;
        }
        self.line.commands.push(Command { words: Vec::new(), is_piped: piped });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Line, String> {
        let variables = [("M".to_owned(), "/srv/my mirror".to_owned())].into();
        line(text, &variables)
    }

    #[test]
    fn words_quotes_and_variables() {
        let line = read(r#"rsync -a 'a b'"c\"d"\ e "$M/x" ${M}/y '' $ # end"#).unwrap();
        assert_eq!(
            line.commands[0].words,
            ["rsync", "-a", "a bc\"d e", "/srv/my mirror/x", "/srv/my", "mirror/y", "", "$"]
        );
        assert_eq!(line.commands.len(), 1);
    }

    #[test]
    fn redirections_and_several_commands() {
        let line = read("cd /x && a b >/dev/null 2>&1; c | d 2>> log <in &>f & e || f").unwrap();
        let words: Vec<String> = line.commands.iter().map(|command| command.words.join(" ")).collect();
        assert_eq!(words, ["cd /x", "a b", "c", "d", "e", "f"]);
        let piped: Vec<bool> = line.commands.iter().map(|command| command.is_piped).collect();
        assert_eq!(piped, [false, false, true, true, false, false]);
        assert!(line.is_redirected && line.reads_file);
        assert_eq!(words_of("--exclude 'a b'"), ["--exclude", "a b"]);
    }

    fn words_of(text: &str) -> Vec<String> {
        super::words(text).unwrap()
    }

    #[test]
    fn a_program_is_named_without_what_may_be_secret() {
        for (text, name) in [
            ("/usr/bin/notify --key s3cret", "/usr/bin/notify"),
            ("KEY=s3cret A_1='x y' notify s3cret", "notify"),
            ("KEY=s3cret", ""),
            ("KEY+=s3cret notify", "notify"),
            ("./a=s3cret b", "./a"),
            ("'notify --key s3cret'", "notify"),
        ] {
            assert_eq!(program(words_of(text).iter().map(String::as_str)), name, "{text}");
        }
    }

    #[test]
    fn what_only_a_shell_can_do() {
        for (text, why) in [
            ("a $(b)", "runs a command"),
            ("a `b`", "runs a command"),
            ("(a)", "subshell"),
            ("a 'b", "not closed"),
            ("a \"b", "not closed"),
            ("a $N", "the variable N"),
            ("a ${M:-x}", "computes"),
        ] {
            assert!(read(text).unwrap_err().contains(why), "{text}");
        }
        assert!(super::words("a; b").is_err() && super::words("a > b").is_err());
        let long: BTreeMap<String, String> = [("L".to_owned(), "x".repeat(EXPANDED_BYTES_MAX / 2))].into();
        assert!(super::line("$L$L$L", &long).is_err());
    }
}
