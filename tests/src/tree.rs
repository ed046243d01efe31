//! Trees of files: made from a seed, compared by hash of names and contents.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

/// Fills `dir` with `count` files of about `bytes` bytes each, in directories of 64, the same for the same
/// seed.
///
/// # Errors
/// When a file cannot be written.
pub fn fill(dir: &Path, count: usize, bytes: usize, seed: u64) -> io::Result<()> {
    let mut random = seed | 1;
    for index in 0..count {
        let folder = dir.join(format!("pool/{:03}", index / 64));
        fs::create_dir_all(&folder)?;
        let mut content = Vec::with_capacity(bytes);
        while content.len() < bytes {
            // xorshift64*: enough to keep rsync from matching blocks by chance.
            random ^= random >> 12;
            random ^= random << 25;
            random ^= random >> 27;
            content.extend_from_slice(&random.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        fs::write(folder.join(format!("package-{index:05}.deb")), content)?;
    }
    Ok(())
}

/// SHA-256 over every name, kind and content below `dir`, in order of names. What the agent keeps for itself
/// (`.rsync-partial`, `.~tmp~`) must not be there, so it counts.
///
/// # Errors
/// When something cannot be read.
pub fn hash(dir: &Path) -> io::Result<String> {
    let mut entries = BTreeMap::new();
    collect(dir, Path::new(""), &mut entries)?;
    let mut hasher = Sha256::new();
    for (name, content) in entries {
        hasher.update(name.to_string_lossy().as_bytes());
        hasher.update([0]);
        hasher.update(content);
    }
    Ok(hex::encode(hasher.finalize()))
}

/// Every file below `dir` with the hash of its content.
///
/// # Errors
/// When something cannot be read.
pub fn files(dir: &Path) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut entries = BTreeMap::new();
    collect(dir, Path::new(""), &mut entries)?;
    entries.retain(|_, content| content.starts_with(b"file "));
    Ok(entries)
}

/// The number of files below `dir`.
#[must_use]
pub fn count(dir: &Path) -> usize {
    files(dir).map_or(0, |files| files.len())
}

fn collect(root: &Path, below: &Path, entries: &mut BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = below.join(entry.file_name());
        let kind = entry.file_type()?;
        let content = if kind.is_dir() {
            collect(root, &name, entries)?;
            b"directory".to_vec()
        } else if kind.is_symlink() {
            format!("link {}", fs::read_link(entry.path())?.display()).into_bytes()
        } else {
            let digest = Sha256::digest(fs::read(entry.path())?);
            format!("file {}", hex::encode(digest)).into_bytes()
        };
        entries.insert(name, content);
    }
    Ok(())
}
