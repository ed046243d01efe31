//! The key of sealed passwords through its whole life: changed, forgotten, lost, found again.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fleet_common;

use std::fs;

use fleet_common::Fleet;
use mirror_coordinator::{
    config::Config,
    identity::SEAL_KEY,
    seal_key::{SealKeyError, Seals, check, renew, rotate},
    store::OpenError,
};

/// What is there: passwords under the present key, under older ones, under none; older keys.
fn counts(seals: &Seals) -> (usize, usize, usize, usize) {
    (seals.present, seals.older, seals.unreadable.len(), seals.older_keys)
}

/// A fleet with one project, whose upstream has a password.
async fn with_password() -> (Fleet, Config) {
    let fleet = Fleet::start().await;
    fleet.enrol("ftp1").await;
    fleet.declare("debian", "ftp1").await;
    let config = fleet.handle.services().config.as_ref().clone();
    (fleet, config)
}

/// What the agent gets with its next assignment.
async fn password_sent(fleet: &Fleet, project: &str) -> Option<String> {
    let mut talk = fleet.connect("ftp1").await;
    fleet.run(project).await;
    let assignment = talk.assignment().await;
    assignment.secrets.map(|secrets| secrets.password)
}

#[tokio::test]
async fn a_changed_key_opens_everything_and_a_forgotten_one_nothing() {
    let (fleet, config) = with_password().await;
    assert!(matches!(check(&config), Err(SealKeyError::Open(OpenError::Running(_)))), "one at a time");
    let dir = fleet.stop().await;
    let key = config.file(SEAL_KEY);
    let before = fs::read_to_string(&key).unwrap();
    assert_eq!(counts(&check(&config).unwrap()), (1, 0, 0, 0));
    assert_eq!(counts(&rotate(&config, false).unwrap()), (1, 0, 0, 1));
    let after = fs::read_to_string(&key).unwrap();
    assert!(after.ends_with(&before) && after.lines().count() == 2);
    // As it is when rotate is cut off between the file and the store, or after a restore of an older backup.
    let newest = format!("{}\n{}", "5a".repeat(32), after);
    fs::write(&key, newest).unwrap();
    assert_eq!(counts(&check(&config).unwrap()), (0, 1, 0, 2));
    assert_eq!(counts(&rotate(&config, true).unwrap()), (1, 0, 0, 0));
    assert_eq!(fs::read_to_string(&key).unwrap().lines().count(), 1);

    let fleet = Fleet::start_in(dir).await;
    assert_eq!(password_sent(&fleet, "debian").await.as_deref(), Some("hunter2"));
    fleet.end().await;
}

#[tokio::test]
async fn a_full_key_file_takes_a_new_key_in_the_place_of_the_older_ones() {
    const KEYS_MAX: usize = 16;
    let (fleet, config) = with_password().await;
    let dir = fleet.stop().await;
    let key = config.file(SEAL_KEY);
    // The password is sealed with the last of the older keys.
    let newer = (1..KEYS_MAX).map(|number| format!("{number:064x}\n")).collect::<String>();
    let full = format!("{newer}{}", fs::read_to_string(&key).unwrap());
    fs::write(&key, &full).unwrap();
    let refused = rotate(&config, false).unwrap_err();
    let told = mirror_coordinator::Chain(&refused).to_string();
    assert!(told.contains("next: keep a copy") && told.ends_with("seal-key rotate --forget-older"), "{told}");
    assert_eq!(fs::read_to_string(&key).unwrap(), full);
    assert_eq!(counts(&check(&config).unwrap()), (0, 1, 0, KEYS_MAX - 1));

    assert_eq!(counts(&rotate(&config, true).unwrap()), (1, 0, 0, 0));
    let left = fs::read_to_string(&key).unwrap();
    assert!(left.lines().count() == 1 && !full.contains(left.trim()), "a key that was never there");

    let fleet = Fleet::start_in(dir).await;
    assert_eq!(password_sent(&fleet, "debian").await.as_deref(), Some("hunter2"));
    fleet.end().await;
}

#[tokio::test]
async fn a_lost_key_is_refused_then_renewed_and_found_again() {
    let (fleet, config) = with_password().await;
    let dir = fleet.stop().await;
    let key = config.file(SEAL_KEY);
    assert!(matches!(renew(&config), Err(SealKeyError::NotLost(_))));
    let lost = fs::read_to_string(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let refused = mirror_coordinator::Coordinator::start(config.clone()).await.err().unwrap();
    let told = mirror_coordinator::Chain(&refused).to_string();
    assert!(told.contains("seal-key") && told.contains(SEAL_KEY), "{told}");
    let renewed = renew(&config).unwrap();
    assert_eq!(counts(&renewed), (0, 0, 1, 0));
    assert_eq!((renewed.unreadable[0].project.as_str(), renewed.unreadable[0].first), ("debian", true));
    let fleet = Fleet::start_in(dir).await;
    assert_eq!(password_sent(&fleet, "debian").await, None, "what does not open is not sent");
    let dir = fleet.stop().await;
    // It turns up again: behind the new one it opens what it sealed.
    let both = format!("{}{lost}", fs::read_to_string(&key).unwrap());
    fs::write(&key, both).unwrap();
    assert_eq!(counts(&rotate(&config, false).unwrap()), (1, 0, 0, 2));
    drop(dir);
}
