//! Questions before something is destroyed. They are asked on a terminal only; without one and without `--yes` the
//! command ends with exit 7 and nothing is changed.

use std::io::{self, BufRead, IsTerminal as _, Read as _, Write};

use crate::exit::Exit;
use crate::fault::{AGAIN, Fault, Outcome};
use crate::units;

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 256;

/// How sure the person must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted<'a> {
    /// `y`.
    Yes,
    /// The name of what is destroyed for good.
    Name(&'a str),
}

/// Asks on the terminal; `yes` is `--yes`.
///
/// # Errors
/// [`Exit::Unconfirmed`] when the answer is no, or nobody can be asked.
pub fn confirm(question: &str, wanted: Wanted<'_>, yes: bool) -> Outcome<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Fault::new(Exit::Unconfirmed, "nothing changed: there is no terminal to ask on")
            .detail("question", question)
            .next(format!("{AGAIN} --yes")));
    }
    let question = units::harmless(question);
    ask(&question, wanted, &mut io::stdin().lock(), &mut io::stderr().lock())
}

fn ask(question: &str, wanted: Wanted<'_>, input: &mut impl BufRead, output: &mut impl Write) -> Outcome<()> {
    let unreadable =
        |error: io::Error| Fault::new(Exit::Unconfirmed, format!("nothing changed: no answer: {error}"));
    match wanted {
        Wanted::Yes => write!(output, "{question} [y/N] "),
        Wanted::Name(name) => write!(output, "{question} Type {name} to go on: "),
    }
    .and_then(|()| output.flush())
    .map_err(unreadable)?;
    let mut answer = String::new();
    input.take(ANSWER_BYTES_MAX).read_line(&mut answer).map_err(unreadable)?;
    let answer = answer.trim();
    let confirmed = match wanted {
        Wanted::Yes => ["y", "yes"].contains(&answer.to_lowercase().as_str()),
        Wanted::Name(name) => answer == name,
    };
    if confirmed { Ok(()) } else { Err(Fault::new(Exit::Unconfirmed, "nothing changed: not confirmed")) }
}

/// Reads a line from the terminal without showing it. `None` where there is no terminal to ask on.
///
/// # Errors
/// A terminal that cannot be read.
pub fn secret(prompt: &str) -> Outcome<Option<String>> {
    let stdin = io::stdin();
    if !stdin.is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let unreadable =
        |error: io::Error| Fault::new(Exit::Unconfirmed, format!("nothing changed: no answer: {error}"));
    let before = rustix::termios::tcgetattr(&stdin).map_err(|error| unreadable(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes -= rustix::termios::LocalModes::ECHO;
    let when = rustix::termios::OptionalActions::Flush;
    rustix::termios::tcsetattr(&stdin, when, &silent).map_err(|error| unreadable(error.into()))?;
    let mut answer = String::new();
    let asked = write!(io::stderr(), "{prompt} ")
        .and_then(|()| stdin.lock().take(ANSWER_BYTES_MAX * 4).read_line(&mut answer));
    let restored = rustix::termios::tcsetattr(&stdin, when, &before);
    // The answer's line end was not shown either; failing to write one spoils nothing.
    let _ = writeln!(io::stderr());
    asked.map_err(unreadable)?;
    restored.map_err(|error| unreadable(error.into()))?;
    Ok(Some(answer.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(wanted: Wanted<'_>, answer: &str) -> (Outcome<()>, String) {
        let mut shown = Vec::new();
        let result = ask("Delete it?", wanted, &mut answer.as_bytes(), &mut shown);
        (result, String::from_utf8(shown).unwrap())
    }

    #[test]
    fn only_yes_is_yes() {
        assert!(answered(Wanted::Yes, "y\n").0.is_ok() && answered(Wanted::Yes, " YES \n").0.is_ok());
        for answer in ["", "\n", "n\n", "yep\n"] {
            assert_eq!(answered(Wanted::Yes, answer).0.unwrap_err().exit, Exit::Unconfirmed, "{answer:?}");
        }
        assert_eq!(answered(Wanted::Yes, "y\n").1, "Delete it? [y/N] ");
    }

    #[test]
    fn what_cannot_be_undone_wants_the_name() {
        assert!(answered(Wanted::Name("debian"), "debian\n").0.is_ok());
        assert!(answered(Wanted::Name("debian"), "y\n").0.is_err());
        assert_eq!(answered(Wanted::Name("debian"), "").1, "Delete it? Type debian to go on: ");
    }

    #[test]
    fn yes_is_not_asked() {
        assert!(confirm("?", Wanted::Name("x"), true).is_ok());
    }
}
