//! Disks of a test's own, unmounted when the test ends, however it ends. They need root; who may not mount is told why.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

/// A file system that is mounted until this is dropped.
#[derive(Debug)]
pub struct Disk {
    mounted: PathBuf,
}

impl Disk {
    /// Mounts a file system in memory of so many bytes at a directory, which is made where it is missing.
    pub fn memory(at: &Path, bytes: u64) -> Result<Self, String> {
        let size = format!("size={bytes},mode=0700");
        Self::mounted(at, Command::new("mount").args(["-t", "tmpfs", "-o", &size, "store-test"]))
    }

    /// Makes an ext4 file system of so many bytes with these options of `mkfs.ext4` in `image`.
    pub fn make(image: &Path, bytes: u64, format: &[&str]) -> Result<(), String> {
        File::create(image).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F"]).args(format).arg(image))
    }

    /// Mounts the file system in `image` at a directory, which is made where it is missing.
    pub fn mount(image: &Path, at: &Path, options: &str) -> Result<Self, String> {
        Self::mounted(at, Command::new("mount").args(["-o", options]).arg(image))
    }

    fn mounted(at: &Path, mount: &mut Command) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        run(mount.arg(at))?;
        Ok(Self { mounted: at.to_owned() })
    }

    /// Mounts it anew with these options: `ro`, `rw`.
    pub fn remount(&self, options: &str) -> Result<(), String> {
        run(Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.mounted))
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mounted
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if run(Command::new("umount").arg(&self.mounted)).is_err() {
            drop(run(Command::new("umount").arg("--lazy").arg(&self.mounted)));
        }
    }
}

/// Runs a command to its end; what it says, where it fails.
pub fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {said}")) }
}
