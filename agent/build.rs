//! Names the build by its sources, so that the agent and `mirror-supervise` know whether they belong together. Knows
//! neither of them.

use std::fs;
use std::hash::{DefaultHasher, Hasher as _};
use std::io;
use std::path::{Path, PathBuf};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    let mut hasher = DefaultHasher::new();
    for file in sources(Path::new("src"))? {
        hasher.write(file.as_os_str().as_encoded_bytes());
        hasher.write(&fs::read(&file)?);
    }
    println!("cargo::rustc-env=MIRROR_AGENT_BUILD={}+{:016x}", env!("CARGO_PKG_VERSION"), hasher.finish());
    Ok(())
}

/// The files below a folder, in one order wherever it is built.
fn sources(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
