//! Field paths of the wire, as the flags that people typed.

/// A wire path and the flag that fills it. The first entry that fits counts, so longer paths stand before shorter.
const FLAGS: [(&str, &str); 71] = [
    ("name", "NAME"),
    ("user.name", "USER"),
    ("user.role", "--role"),
    ("user", "USER"),
    ("password", "--password-file"),
    ("old_password", "--old-password-file"),
    ("display_name", "--display-name"),
    ("owner", "--owner"),
    ("after", "--after"),
    ("new_name", "NEW"),
    ("labels", "--label"),
    ("upstreams.user", "--user"),
    ("upstreams.password", "--password-file"),
    ("upstreams", "--from"),
    ("destination", "--to"),
    ("schedule.crontab", "--crontab"),
    ("schedule.interval", "--every"),
    ("schedule.time_zone", "--time-zone"),
    ("schedule.start_time", "--start"),
    ("schedule.end_time", "--end"),
    ("schedule.jitter", "--jitter"),
    ("schedule.overlap_policy", "--overlap"),
    ("schedule.catch_up_window", "--catch-up"),
    ("schedule.dst_overlap", "--dst-overlap"),
    ("schedule.windows", "--window"),
    ("schedule.spread", "--spread"),
    ("schedule.named", "--every"),
    ("schedule", "--cron"),
    ("rsync.options", "--rsync-option"),
    ("rsync.no_defaults", "--no-default-options"),
    ("rsync.defaults", "--rsync-default"),
    ("rsync.delete", "--rsync-delete"),
    ("rsync.connect_timeout", "--connect-timeout"),
    ("rsync.io_timeout", "--io-timeout"),
    ("rsync.stall_timeout", "--stall-timeout"),
    ("rsync.run_timeout", "--run-timeout"),
    ("rsync.bandwidth_limit_kib", "--bandwidth"),
    ("rsync", "--rsync-option"),
    ("placement.origins", "--origin"),
    ("placement.replicas", "--replicas"),
    ("placement.max_parallel", "--max-parallel"),
    ("placement.propagation_timeout", "--propagation-timeout"),
    ("placement.drain_timeout", "--drain-timeout"),
    ("placement", "--origin"),
    ("guard", "--max-delete"),
    ("publish.link", "--link"),
    ("publish", "--link"),
    ("retry.initial_backoff", "--retry-backoff"),
    ("retry", "--retry-attempts"),
    ("upstream.slots", "--slots"),
    ("upstream.spacing", "--spacing"),
    ("upstream.name", "HOST"),
    ("upstream", "--to"),
    ("from", "OLD"),
    ("to", "NEW"),
    ("replacement", "NEW"),
    ("agent.name", "AGENT"),
    ("agent.labels", "--label"),
    ("agent.max_running", "--max-running"),
    ("agent.max_serving", "--max-serving"),
    ("agent.bandwidth_limit_kib", "--bandwidth"),
    ("agent", "--name"),
    ("force", "--force"),
    ("pattern", "--pattern"),
    ("cidrs", "--cidr"),
    ("uses", "--uses"),
    ("ttl", "--ttl"),
    ("reason", "--reason"),
    ("until", "--until"),
    ("page_token", "--page-token"),
    ("page_size", "--page-size"),
];

/// The flag for a path such as `project.upstreams[0].uri`; a path that no flag fills stays as it is.
#[must_use]
pub fn typed(path: &str) -> String {
    let bare = without_indices(path.strip_prefix("project.").unwrap_or(path));
    if let Some(field) = bare.strip_prefix("schedule.cron.") {
        return format!("--cron {field}");
    }
    let fits =
        |known: &str| bare.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    // The first origin pulls; the others stand by.
    if bare.starts_with("placement.origins") && path.contains("origins[") && !path.contains("origins[0]") {
        return "--standby".to_owned();
    }
    // The first upstream is preferred; the others are in its place.
    if bare.starts_with("upstreams") && path.contains("upstreams[") && !path.contains("upstreams[0]") {
        let of_password = bare.ends_with(".password");
        return if of_password { "--fallback-password-file" } else { "--fallback" }.to_owned();
    }
    match FLAGS.iter().find(|(known, _)| fits(known)) {
        Some((_, flag)) => (*flag).to_owned(),
        None => path.to_owned(),
    }
}

/// `a[0].b["k"].c` as `a.b.c`.
fn without_indices(path: &str) -> String {
    let mut depth = 0_usize;
    path.chars()
        .filter(|character| {
            match character {
                '[' => depth += 1,
                ']' => {
                    depth = depth.saturating_sub(1);
                    return false;
                }
                _ => {}
            }
            depth == 0
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_flags() {
        for (path, flag) in [
            ("upstreams[0].uri", "--from"),
            ("upstreams", "--from"),
            ("upstreams[0].password", "--password-file"),
            ("project.upstreams[1].uri", "--fallback"),
            ("upstreams[2].password", "--fallback-password-file"),
            ("upstream", "--to"),
            ("upstream.slots", "--slots"),
            ("project.destination", "--to"),
            ("project.name", "NAME"),
            ("schedule.cron.minute", "--cron minute"),
            ("schedule.cron", "--cron"),
            ("schedule.crontab", "--crontab"),
            ("schedule.interval.every", "--every"),
            ("rsync.options[3]", "--rsync-option"),
            ("rsync.defaults.words[3]", "--rsync-default"),
            ("rsync.delete", "--rsync-delete"),
            ("schedule.spread", "--spread"),
            ("placement.origins[0].agent", "--origin"),
            ("placement.origins", "--origin"),
            ("placement.origins[1].agent", "--standby"),
            ("placement.replicas[2].selector", "--replicas"),
            ("labels[tier]", "--label"),
            ("labels.tier", "--label"),
            ("guard.max_delete", "--max-delete"),
            ("page_token", "--page-token"),
            ("namesake", "namesake"),
        ] {
            assert_eq!(typed(path), flag, "{path}");
        }
    }
}
