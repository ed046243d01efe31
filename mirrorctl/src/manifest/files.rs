//! Files that hold manifests and passwords. Knows no format.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::{MANIFEST_BYTES_MAX, MANIFEST_FILES_MAX};
use crate::fault::{Fault, Outcome};

/// One file that was read.
#[derive(Debug)]
pub(super) struct Source {
    /// As it was named.
    pub(super) name: String,
    /// What relative paths in it count from.
    pub(super) directory: PathBuf,
    pub(super) text: String,
}

/// Reads all that `path` names.
pub(super) fn read(failed: &str, path: &Path) -> Outcome<Vec<Source>> {
    let broken = |path: &Path, why: &dyn std::fmt::Display| {
        Fault::of_input(failed, vec![("-f".to_owned(), format!("{}: {why}", path.display()))])
    };
    if path == Path::new("-") {
        let text = limited(io::stdin(), MANIFEST_BYTES_MAX).map_err(|error| broken(path, &error))?;
        return Ok(vec![Source { name: "standard input".to_owned(), directory: PathBuf::new(), text }]);
    }
    let paths = if path.is_dir() {
        let found = in_directory(path).map_err(|error| broken(path, &error))?;
        if found.is_empty() {
            return Err(broken(path, &"holds no file that ends in .toml or .json"));
        }
        if found.len() > MANIFEST_FILES_MAX {
            let text = format!("holds {} files; at most {MANIFEST_FILES_MAX} are read", found.len());
            return Err(broken(path, &text));
        }
        found
    } else {
        vec![path.to_owned()]
    };
    let mut left = MANIFEST_BYTES_MAX;
    let mut sources = Vec::with_capacity(paths.len());
    for path in paths {
        let text =
            File::open(&path).and_then(|file| limited(file, left)).map_err(|error| broken(&path, &error))?;
        left = left.saturating_sub(text.len() as u64);
        let directory = path.parent().map_or_else(PathBuf::new, Path::to_owned);
        sources.push(Source { name: path.display().to_string(), directory, text });
    }
    Ok(sources)
}

fn in_directory(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        let known = path.extension().is_some_and(|ending| ending == "toml" || ending == "json");
        if known && path.is_file() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn limited(from: impl Read, bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    from.take(bytes + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes {
        return Err(io::Error::other(format!(
            "manifests of more than {MANIFEST_BYTES_MAX} bytes are not read"
        )));
    }
    Ok(text)
}

/// The content of a file that holds a secret, without its line end.
pub(super) fn secret(path: &Path, bytes: u64) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(bytes).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
