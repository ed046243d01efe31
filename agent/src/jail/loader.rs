//! Which files the kernel executes when it executes a program: the program, its `#!` interpreter, and the ELF
//! loader each of them names. Landlock's execute right is asked for exactly these; shared libraries are only
//! read.

use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a file's beginning that the kernel looks at for `#!` (`BINPRM_BUF_SIZE`).
const HEAD_BYTES: usize = 256;
/// Interpreters of interpreters that the kernel follows.
const DEPTH_MAX: usize = 5;
/// Program headers looked at; real programs have about a dozen.
const HEADERS_MAX: u16 = 128;
/// The longest loader path (`PATH_MAX`).
const PATH_BYTES_MAX: usize = 4096;
/// Program header type of the loader's path.
const PT_INTERP: u32 = 3;

/// `program` and everything that is executed on its behalf.
///
/// # Errors
/// One of the files cannot be read or is cut short.
pub(super) fn executed_files(program: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![program.to_owned()];
    while let Some(next) = interpreter(&files[files.len() - 1])? {
        if files.len() > DEPTH_MAX {
            return Err(io::Error::other("too many levels of interpreters"));
        }
        files.push(next);
    }
    Ok(files)
}

/// The `#!` interpreter or ELF loader of one file, none for a static program.
fn interpreter(path: &Path) -> io::Result<Option<PathBuf>> {
    let file = File::open(path)?;
    let mut head = [0; HEAD_BYTES];
    let mut length = 0;
    while length < HEAD_BYTES {
        match file.read_at(&mut head[length..], length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    let head = &head[..length];
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        return Ok(words.next().map(path_of));
    }
    if head.starts_with(b"\x7fELF") { elf_loader(&file, head) } else { Ok(None) }
}

/// Walks the program headers (elf(5)), 32 and 64 bit, in the byte order of this machine: no other one is
/// executed here.
fn elf_loader(file: &File, head: &[u8]) -> io::Result<Option<PathBuf>> {
    let wide = head.get(4) == Some(&2);
    let (table_at, size_at, count_at) = if wide { (32, 54, 56) } else { (28, 42, 44) };
    let (offset_at, length_at) = if wide { (8, 32) } else { (4, 16) };
    let word =
        |bytes: &[u8], at: usize| if wide { u64_at(bytes, at) } else { u32_at(bytes, at).map(u64::from) };
    let short = || io::Error::new(io::ErrorKind::UnexpectedEof, "an ELF header is cut short");

    let table = word(head, table_at).ok_or_else(short)?;
    let size = u16_at(head, size_at).ok_or_else(short)?;
    let count = u16_at(head, count_at).ok_or_else(short)?;
    for number in 0..count.min(HEADERS_MAX) {
        let mut header = vec![0; usize::from(size)];
        file.read_exact_at(&mut header, table.saturating_add(u64::from(number) * u64::from(size)))?;
        if u32_at(&header, 0).ok_or_else(short)? != PT_INTERP {
            continue;
        }
        let offset = word(&header, offset_at).ok_or_else(short)?;
        let length = usize::try_from(word(&header, length_at).ok_or_else(short)?).unwrap_or(usize::MAX);
        let mut path = vec![0; length.min(PATH_BYTES_MAX)];
        file.read_exact_at(&mut path, offset)?;
        return Ok(path.split(|&byte| byte == 0).next().map(path_of));
    }
    Ok(None)
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_brings_its_shell_and_the_shells_loader() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("hook");
        std::fs::write(&script, "#! /bin/sh -e\nexit 0\n").unwrap();
        let files = executed_files(&script).unwrap();
        assert_eq!(files[..2], [script, PathBuf::from("/bin/sh")]);
        for loader in &files[2..] {
            assert!(loader.is_absolute() && loader.exists(), "{}", loader.display());
        }
    }

    #[test]
    fn this_program_names_a_loader_that_exists() {
        let own = std::env::current_exe().unwrap();
        let files = executed_files(&own).unwrap();
        assert!(files.len() <= 2);
        assert!(files.iter().all(|file| file.exists()), "{files:?}");
    }

    #[test]
    fn scripts_in_a_circle_and_damaged_programs_are_errors_or_static() {
        let dir = tempfile::tempdir().unwrap();
        let circle = dir.path().join("circle");
        std::fs::write(&circle, format!("#!{}\n", circle.display())).unwrap();
        executed_files(&circle).unwrap_err();
        let cut = dir.path().join("cut");
        std::fs::write(&cut, b"\x7fELF\x02\x01").unwrap();
        executed_files(&cut).unwrap_err();
        let text = dir.path().join("text");
        std::fs::write(&text, b"").unwrap();
        assert_eq!(executed_files(&text).unwrap(), [text]);
        executed_files(&dir.path().join("absent")).unwrap_err();
    }
}
