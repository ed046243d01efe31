//! What all commands share: flags, the look of the output, the connection, and the two streams.
//!
//! Data goes to standard output; hints, questions and errors to standard error.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::time::Duration;

use mirror_certs::Peer;
use prost::Message;
use serde_json::Value as Json;

use crate::cli::{Format, Global, TIMEOUT_DEFAULT};
use crate::client::{Client, own_certificate};
use crate::config::{self, Context, Overrides};
use crate::exit::Exit;
use crate::fault::{AGAIN, Fault, Outcome};
use crate::term::View;
use crate::{clock, json, renewal, units, yaml};

/// One call of the program.
#[derive(Debug)]
pub struct App {
    /// Flags of all commands.
    pub global: Global,
    argv: Vec<String>,
    words: String,
    traceparent: Option<String>,
}

impl App {
    /// A call with these flags; `argv` is only used to print corrected command lines, `words` (the command without
    /// its arguments) to name its help.
    #[must_use]
    pub fn new(global: Global, argv: &[OsString], words: &str, traceparent: Option<String>) -> Self {
        let argv = argv.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        Self { global, argv, words: words.to_owned(), traceparent }
    }

    /// The look of standard output, now.
    #[must_use]
    pub fn view(&self) -> View {
        let wide = self.global.output == Format::Wide;
        View::stdout(clock::now(), self.global.color, self.global.absolute, wide)
    }

    /// Where configuration comes from.
    #[must_use]
    pub fn overrides(&self) -> Overrides {
        let global = &self.global;
        Overrides {
            config: global.config.clone(),
            context: global.context.clone(),
            server: global.server.clone(),
            ca: global.ca.clone(),
            certificate: global.certificate.clone(),
            key: global.key.clone(),
            socket: global.socket.clone(),
        }
    }

    /// Dials the chosen context's coordinator.
    ///
    /// # Errors
    /// No usable context, or no connection.
    pub async fn connect(&self) -> Outcome<Client> {
        self.connect_within(self.timeout()?).await
    }

    async fn connect_within(&self, timeout: Duration) -> Outcome<Client> {
        let overrides = self.overrides();
        let traceparent = self.traceparent.as_deref();
        if let Some(socket) = &overrides.socket {
            return Client::connect_socket(socket, timeout, traceparent).await;
        }
        let (name, context) = config::choose(&config::load(&overrides)?, &overrides)?;
        let own = own_certificate(&context);
        if let Some(fault) = not_logged_in(&name, &context, own.as_ref()) {
            return Err(fault);
        }
        let client = Client::connect(&context, timeout, traceparent).await?;
        if let Some(own) = own {
            renewal::renew(&client, &context, &own).await;
        }
        Ok(client)
    }

    /// Dials the chosen context's coordinator as nobody in particular, to log in.
    ///
    /// # Errors
    /// No usable context, or no connection.
    pub async fn connect_as_nobody(&self, context: &Context) -> Outcome<Client> {
        Client::connect_as_nobody(context, self.timeout()?, self.traceparent.as_deref()).await
    }

    /// Dials for an answer that usually takes longer than others: up to `usual`, unless people named a time.
    ///
    /// # Errors
    /// No usable context, or no connection.
    pub async fn connect_for(&self, usual: Duration) -> Outcome<Client> {
        let timeout = if self.global.timeout == TIMEOUT_DEFAULT { usual } else { self.timeout()? };
        self.connect_within(timeout).await
    }

    /// Where the coordinator is, as this call dials it.
    ///
    /// # Errors
    /// No usable context.
    pub fn server(&self) -> Outcome<String> {
        let overrides = self.overrides();
        if overrides.socket.is_some() {
            // Whoever sits on the coordinator's host knows its name better than the socket does.
            return Ok(format!("COORDINATOR:{}", config::PORT_DEFAULT));
        }
        Ok(config::choose(&config::load(&overrides)?, &overrides)?.1.server)
    }

    /// How long an answer may take.
    ///
    /// # Errors
    /// A text that is no span.
    pub fn timeout(&self) -> Outcome<Duration> {
        let seconds = fleet::schedule::parse_span(&self.global.timeout).map_err(|fault| {
            Fault::of_input("nothing done", vec![("--timeout".to_owned(), fault.to_string())])
        })?;
        Ok(Duration::from_secs(seconds))
    }

    /// Whether answers are objects, for programs: JSON, or the same in YAML.
    #[must_use]
    pub fn is_json(&self) -> bool {
        matches!(self.global.output, Format::Json | Format::Yaml)
    }

    /// Prints one message in the wanted format: `name` is its name in the contract, `names` what `-o name` prints.
    ///
    /// # Errors
    /// A closed or full standard output.
    pub fn answer(
        &self,
        message: &impl Message,
        name: &str,
        names: &[&str],
        text: impl FnOnce(&View) -> String,
    ) -> Outcome<()> {
        match self.global.output {
            Format::Json | Format::Yaml => self.answer_json(&json::value(message, name)?),
            Format::Name => self.print(&names.iter().map(|name| format!("{name}\n")).collect::<String>()),
            Format::Table | Format::Wide => self.print(&text(&self.view())),
        }
    }

    /// Prints one JSON object on a line of its own, or the same as a YAML document.
    ///
    /// # Errors
    /// A closed or full standard output.
    pub fn answer_json(&self, json: &Json) -> Outcome<()> {
        if self.global.output == Format::Yaml {
            return self.print_bytes(yaml::document(json)?.as_bytes());
        }
        self.print_bytes(units::harmless_json(&format!("{json}\n")).as_bytes())
    }

    /// Says what was changed in one line, and the next command; or shows the message, when a program reads it.
    ///
    /// # Errors
    /// A closed or full standard output.
    pub fn changed(
        &self,
        message: &impl Message,
        name: &str,
        names: &[&str],
        what: &str,
        next: &str,
    ) -> Outcome<()> {
        if matches!(self.global.output, Format::Json | Format::Yaml | Format::Name) {
            return self.answer(message, name, names, |_| String::new());
        }
        self.said(what, next)
    }

    /// Says what was changed in one line, and the next command. Nothing with `-q`.
    ///
    /// # Errors
    /// A closed or full standard output.
    pub fn said(&self, what: &str, next: &str) -> Outcome<()> {
        if self.global.quiet {
            return Ok(());
        }
        self.print(&format!("{what}\n"))?;
        if !next.is_empty() {
            note(&format!("Next: {next}"));
        }
        Ok(())
    }

    /// A hint on standard error; nothing with `-q` or where a program reads.
    pub fn hint(&self, text: &str) {
        if !self.global.quiet && matches!(self.global.output, Format::Table | Format::Wide) {
            note(text);
        }
    }

    /// Writes text to standard output, made safe for a terminal.
    ///
    /// # Errors
    /// A reader that went away ends the command quietly; any other failure is told.
    pub fn print(&self, text: &str) -> Outcome<()> {
        self.print_bytes(units::harmless(text).as_bytes())
    }

    /// Writes bytes as they are to standard output.
    ///
    /// # Errors
    /// As [`App::print`].
    pub fn print_bytes(&self, bytes: &[u8]) -> Outcome<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Fault::reader_gone(),
            _ => Fault::new(Exit::Bug, format!("could not write the answer: {error}")).fault("this host's"),
        })
    }

    /// Prints an error to standard error. The last line is a command, the most likely one where none was named.
    pub fn complain(&self, fault: &Fault) {
        let next = match &fault.next {
            Some(next) => Some(next.replace(AGAIN, &self.corrected("", ""))),
            None => match fault.exit {
                Exit::BadInput => Some(format!("mirrorctl {} --help", self.words)),
                Exit::Unreachable => Some(self.corrected("", "")),
                _ => None,
            },
        };
        let told = Fault { next, ..fault.clone() };
        // Nothing can be said when standard error is gone.
        let _ = write!(io::stderr(), "{}", units::harmless(&told.to_string()));
    }

    /// This command line with one word replaced, quoted so that it can be pasted; no word is empty, so an empty one
    /// replaces none.
    #[must_use]
    pub fn corrected(&self, wrong: &str, right: &str) -> String {
        let mut replaced = false;
        let words = self.argv.iter().skip(1).map(|word| {
            if !replaced && !wrong.is_empty() && word == wrong {
                replaced = true;
                quoted(right)
            } else {
                // Standard input was read already, and pasted the line would wait for it.
                match word.strip_suffix('-') {
                    Some(flag) if flag.is_empty() || flag.ends_with('=') => format!("{flag}FILE"),
                    _ => quoted(word),
                }
            }
        });
        std::iter::once("mirrorctl".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// Why nothing of this context would be let in; `None`: something may be.
fn not_logged_in(name: &str, context: &Context, own: Option<&Peer>) -> Option<Fault> {
    let ended = own.filter(|own| own.not_after <= clock::now());
    let text = match (ended, &context.token, &context.certificate) {
        (_, Some(_), _) => return None,
        (Some(own), None, _) => format!(
            "the certificate of context {name} ended {}",
            units::moment_and_distance(own.not_after, clock::now())
        ),
        (None, None, Some(_)) => return None,
        (None, None, None) => format!("not logged in: context {name} has no certificate and no token"),
    };
    Some(Fault::new(Exit::NotAllowed, text).next("mirrorctl login USER"))
}

/// A line on standard error.
pub fn note(text: &str) {
    // Nothing can be said when standard error is gone.
    let _ = writeln!(io::stderr(), "{}", units::harmless(text));
}

/// A word as a POSIX shell reads it back.
pub(crate) fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_./:=,@%+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn app(words: &[&str]) -> App {
        let argv: Vec<OsString> = words.iter().map(OsString::from).collect();
        App::new(crate::cli::Cli::try_parse_from(words).unwrap().global, &argv, "status", None)
    }

    #[test]
    fn corrected_lines_can_be_pasted() {
        let app = app(&["mirrorctl", "project", "pause", "debain", "--reason", "it's debain"]);
        assert_eq!(
            app.corrected("debain", "debian"),
            "mirrorctl project pause debian --reason 'it'\\''s debain'"
        );
    }

    #[test]
    fn corrected_lines_do_not_wait_for_a_terminal() {
        let app = app(&["mirrorctl", "plan", "-f", "-", "--timeout", "9s"]);
        assert_eq!(app.corrected("", ""), "mirrorctl plan -f FILE --timeout 9s");
        let joined = self::app(&["mirrorctl", "plan", "--file=-"]);
        assert_eq!(joined.corrected("", ""), "mirrorctl plan --file=FILE");
    }

    #[test]
    fn a_bad_timeout_is_told_by_its_flag() {
        let fault = app(&["mirrorctl", "status", "--timeout", "soon"]).timeout().unwrap_err();
        assert!(fault.to_string().contains("--timeout  \"soon\""), "{fault}");
    }
}
