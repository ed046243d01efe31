//! Power cuts and disks that lose what they took: a file system of the test's own on a disk of its own, copied as it
//! is on that disk while eight writers write. What is only in the kernel's memory is not on the copy, so it is what a
//! power cut leaves. Needs root and loop devices; says so where it has none.

#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "the test mounts disks for itself, and says what it skips"
)]

mod store_common;

use std::{
    fs::{self, File},
    io,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use mirror_coordinator::store::Store;
use rand::Rng as _;
use rustix::process::{Pid, Signal, kill_process};
use store_common::{
    disk::{Disk, run},
    open, options, temp_dir,
    writers::{acknowledged, assert_holds, start, write, write_until_ended},
};

/// Bytes of the disk.
const DISK_BYTES: u64 = 96 << 20;
/// Power cuts.
const CUTS: u32 = 8;
/// Longest wait until a stopped process stands still.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait until a write is acknowledged.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks at what was acknowledged.
const WRITE_PAUSE: Duration = Duration::from_millis(5);
/// Times that a disk fails and is mended.
const FAILURES: u64 = 12;

/// The writers, ended with the test, however it ends: they would keep its disks.
struct Writers(Child);

impl Drop for Writers {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Stops a process, and waits until each of its threads has: the signal alone is no more than a wish.
fn stop(pid: u32) {
    signal(pid, Signal::STOP);
    let stopped = |task: &Path| {
        let stat = fs::read_to_string(task.join("stat")).unwrap_or_default();
        // proc_pid_stat(5): the state follows the name, which may hold anything.
        stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with('T'))
    };
    let begun = Instant::now();
    loop {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        if tasks.map(|task| task.unwrap().path()).all(|task| stopped(&task)) {
            return;
        }
        assert!(begun.elapsed() < STOP_WAIT_MAX, "it does not stop");
        thread::yield_now();
    }
}

/// Waits until more units are acknowledged than these.
fn await_more_than(before: u64, notes: &Path) {
    let begun = Instant::now();
    while acknowledged(notes).iter().sum::<u64>() <= before {
        assert!(begun.elapsed() < WRITE_WAIT_MAX, "nothing is acknowledged any more");
        thread::sleep(WRITE_PAUSE);
    }
}

#[test]
fn child_writes_until_it_is_ended() {
    write_until_ended();
}

#[test]
fn after_a_power_cut_every_acknowledged_write_is_there() {
    let dir = temp_dir();
    let (images, live, after) =
        (dir.path().join("images"), dir.path().join("live"), dir.path().join("after"));
    let set_up = || -> Result<(Disk, Disk), String> {
        let images_disk = Disk::memory(&images, 3 * DISK_BYTES)?;
        Disk::make(&images.join("disk"), DISK_BYTES, &[])?;
        Ok((images_disk, Disk::mount(&images.join("disk"), &live, "loop")?))
    };
    let (_images_disk, _live_disk) = match set_up() {
        Ok(disks) => disks,
        Err(why) => return println!("skipped: no disk of its own here: {why}"),
    };
    let notes = dir.path().join("acknowledged");
    let writers = Writers(start("child_writes_until_it_is_ended", &live.join("store"), &notes));
    let mut before = 0;
    for cut in 0..CUTS {
        await_more_than(before, &notes);
        // Where in its writing it is met is the fault that is tried.
        thread::sleep(Duration::from_millis(rand::rng().random_range(50..400)));
        stop(writers.0.id());
        let told = acknowledged(&notes);
        let copied = io::copy(
            &mut File::open(images.join("disk")).unwrap(),
            &mut File::create(images.join("cut")).unwrap(),
        );
        signal(writers.0.id(), Signal::CONT);
        assert_eq!(copied.unwrap(), DISK_BYTES);

        let _after_disk = Disk::mount(&images.join("cut"), &after, "loop").unwrap();
        let opened = open(&after.join("store"));
        assert!(!opened.rewound, "cut {cut}: {:?}", opened.report);
        // Those on the disk that were not noted yet: at most one of each writer.
        assert_holds(&opened.store, &told, 1, &format!("cut {cut}"));
        before = told.iter().sum();
        opened.store.close().unwrap();
    }
    println!("{before} units acknowledged over {CUTS} power cuts");
}

/// The kernel takes what a disk refused for written, so a store that is only opened again and goes on would build its
/// later commits on pages that are on no disk.
#[test]
fn what_a_failing_disk_did_not_take_is_written_again_when_it_is_mended() {
    let dir = temp_dir();
    let (images, live) = (dir.path().join("images"), dir.path().join("live"));
    let set_up = || -> Result<(Disk, Disk), String> {
        // What is free in the file system has no room of its own in the image. When the image's disk is full, such a
        // block is refused: an error of input and output for whoever writes to the file system. Its own tables have
        // their room, so that only data is hit; and it has no journal, so that it stays mounted.
        let images_disk = Disk::memory(&images, 2 * DISK_BYTES + (8 << 20))?;
        Disk::make(&images.join("holes"), DISK_BYTES, &["-O", "^has_journal", "-E", "lazy_itable_init=0"])?;
        let whole = fs::read(images.join("holes")).map_err(|error| error.to_string())?;
        fs::write(images.join("disk"), whole).map_err(|error| error.to_string())?;
        fs::remove_file(images.join("holes")).map_err(|error| error.to_string())?;
        let live_disk = Disk::mount(&images.join("disk"), &live, "loop,errors=continue")?;
        run(Command::new("fstrim").arg(&live))?;
        Ok((images_disk, live_disk))
    };
    let (_images_disk, live_disk) = match set_up() {
        Ok(disks) => disks,
        Err(why) => return println!("skipped: no disk of its own here: {why}"),
    };
    let notes = dir.path().join("acknowledged");
    let store = Store::open(&live.join("store"), &options()).unwrap().store;
    let filler = images.join("filler");
    for round in 0..FAILURES {
        let mut file = File::create(&filler).unwrap();
        while io::Write::write_all(&mut file, &[1; 65_536]).is_ok() {}
        drop(file);
        // Ends with the commit that the disk does not take.
        write(&store, &notes);
        fs::remove_file(&filler).unwrap();
        let told = acknowledged(&notes);
        store.reopen().unwrap_or_else(|error| panic!("round {round}: {error:?}"));
        assert_holds(&store, &told, 1 + round, &format!("round {round}"));
    }
    let (told, revision) = (acknowledged(&notes), store.revision());
    store.close().unwrap();
    drop(store);
    // Out of the kernel's memory: from here on only what is on the disk counts.
    drop(live_disk);
    let _live_disk = Disk::mount(&images.join("disk"), &live, "loop").unwrap();
    let opened = open(&live.join("store"));
    assert!(!opened.rewound && opened.clean, "{:?}", opened.report);
    assert_eq!(opened.store.revision(), revision);
    assert_holds(&opened.store, &told, FAILURES, "on the disk");
}
