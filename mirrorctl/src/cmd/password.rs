//! Passwords as they come in: from a file, from standard input, or asked for without being shown. Never from a command
//! line.

use std::io::Read as _;
use std::path::Path;

use fleet::defaults::PASSWORD_BYTES_MAX;
use zeroize::Zeroizing;

use crate::confirm::secret;
use crate::exit::Exit;
use crate::fault::{AGAIN, Fault, Outcome};

/// Longest file that is read, in bytes: a password that is too long is told of by its length, not cut.
const FILE_BYTES_MAX: u64 = PASSWORD_BYTES_MAX as u64 + 64;

/// A password that is there already.
pub(super) fn present(prompt: &str, flag: &str, file: Option<&Path>) -> Outcome<Zeroizing<String>> {
    match file {
        Some(file) => read(flag, file),
        None => ask(prompt, flag),
    }
}

/// A new password: asked for twice, so that a slip of the finger does not shut anybody out.
pub(super) fn new(prompt: &str, flag: &str, file: Option<&Path>) -> Outcome<Zeroizing<String>> {
    if let Some(file) = file {
        return read(flag, file);
    }
    let first = ask(prompt, flag)?;
    let second = ask("Once more:", flag)?;
    if first == second {
        return Ok(first);
    }
    Err(Fault::new(Exit::BadInput, "nothing changed: the two passwords differ").next(AGAIN))
}

fn ask(prompt: &str, flag: &str) -> Outcome<Zeroizing<String>> {
    match secret(prompt)? {
        Some(answer) => Ok(Zeroizing::new(answer)),
        None => Err(Fault::new(
            Exit::Unconfirmed,
            "nothing changed: there is no terminal to ask for the password on",
        )
        .next(format!("{AGAIN} {flag} FILE"))),
    }
}

fn read(flag: &str, path: &Path) -> Outcome<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        std::io::stdin().take(FILE_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
    };
    read.map_err(|error| {
        Fault::of_input("nothing changed", vec![(flag.to_owned(), format!("{}: {error}", path.display()))])
    })?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_without_its_line_end_and_one_that_is_missing_is_told_by_its_flag() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        std::fs::write(&path, "correct horse battery\n").unwrap();
        assert_eq!(new("?", "--password-file", Some(&path)).unwrap().as_str(), "correct horse battery");
        let missing = directory.path().join("nowhere");
        let fault = present("?", "--password-file", Some(&missing)).unwrap_err();
        assert!(fault.to_string().contains("--password-file"), "{fault}");
    }
}
