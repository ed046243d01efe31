//! Upstream hosts as people see and set them: the limits in force, and how each one stands.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    hosts::{HostState, host_of},
    state::Engine,
};
use crate::{
    defaults,
    input::{Decision, Reply},
    record::{Change, Key, Record},
    refusal::{Refusal, RefusalCode},
    time::Now,
    upstream::{self, UpstreamRecord},
};

/// How one upstream host stands.
#[derive(Debug, Clone)]
pub struct UpstreamView<'a> {
    /// As in URIs.
    pub host: &'a str,
    /// What a person has set.
    pub record: Option<&'a UpstreamRecord>,
    /// Connections in use.
    pub in_use: u32,
    /// Attempts that wait and would ask it.
    pub waiting: u32,
    /// Projects that name it.
    pub projects: u32,
    /// How it answered lately; `None`: not asked for long.
    pub state: Option<&'a HostState>,
}

impl Engine {
    /// Connections to this upstream host over the whole fleet.
    #[must_use]
    pub fn upstream_slots(&self, host: &str) -> u32 {
        self.upstreams.get(host).and_then(|record| record.slots).unwrap_or(self.limits.upstream_slots)
    }

    /// Pause between two starts at this upstream host.
    #[must_use]
    pub fn upstream_spacing(&self, host: &str) -> Duration {
        self.upstreams.get(host).and_then(|record| record.spacing).unwrap_or(self.limits.upstream_spacing)
    }

    /// What a person has set for this upstream host.
    #[must_use]
    pub fn upstream(&self, host: &str) -> Option<&UpstreamRecord> {
        self.upstreams.get(host)
    }

    /// How this upstream host answered lately; `None`: not asked for long.
    #[must_use]
    pub fn upstream_host_state(&self, host: &str) -> Option<&HostState> {
        self.hosts.get(host)
    }

    /// Every upstream host that a project names or a person has set, in order of their names.
    #[must_use]
    pub fn upstream_views(&self) -> Vec<UpstreamView<'_>> {
        let mut found: BTreeMap<&str, UpstreamView<'_>> = BTreeMap::new();
        for host in self.upstreams.keys() {
            found.insert(host, self.bare_view(host));
        }
        for project in self.projects.values() {
            let mut hosts: Vec<&str> =
                project.record.spec.upstreams.iter().map(|upstream| upstream.host.as_str()).collect();
            hosts.sort_unstable();
            hosts.dedup();
            for host in hosts {
                found.entry(host).or_insert_with(|| self.bare_view(host)).projects += 1;
            }
        }
        for host in self.pending.iter().filter_map(|id| self.attempts.get(id)).filter_map(host_of) {
            if let Some(view) = found.get_mut(host) {
                view.waiting += 1;
            }
        }
        found.into_values().collect()
    }

    /// How this upstream host stands, named or not.
    #[must_use]
    pub fn upstream_view<'a>(&'a self, host: &'a str) -> UpstreamView<'a> {
        let all = self.upstream_views();
        all.into_iter().find(|view| view.host == host).unwrap_or_else(|| self.bare_view(host))
    }

    fn bare_view<'a>(&'a self, host: &'a str) -> UpstreamView<'a> {
        UpstreamView {
            host,
            record: self.upstreams.get(host),
            in_use: u32::try_from(self.usage.hosts.get(host).map_or(0, BTreeSet::len)).unwrap_or(u32::MAX),
            waiting: 0,
            projects: 0,
            state: self.hosts.get(host),
        }
    }

    /// Sets what a person wants for one host; with nothing set its record goes.
    pub(super) fn set_upstream(
        &self,
        now: Now,
        host: String,
        slots: Option<u32>,
        spacing: Option<Duration>,
        revision: Option<u64>,
    ) -> Result<Decision, Refusal> {
        let known = self.upstreams.get(&host);
        if revision.is_some_and(|revision| revision != known.map_or(0, |known| known.revision)) {
            return Err(Refusal::stale("upstream", &host));
        }
        let faults = upstream::faults(slots, spacing);
        if !faults.is_empty() {
            return Err(Refusal::invalid("upstream not changed", faults));
        }
        if known.is_none() && self.upstreams.len() >= defaults::UPSTREAMS_MAX {
            let text = format!(
                "limits are set for {} upstream hosts already; set some back to 0",
                defaults::UPSTREAMS_MAX
            );
            return Err(Refusal::new(RefusalCode::ResourceExhausted, "TOO_MANY_UPSTREAMS", text));
        }
        let change = match (slots, spacing) {
            (None, None) => known.map(|_| Change::Delete(Key::Upstream(host))),
            (slots, spacing) => Some(Change::Put(Record::Upstream(UpstreamRecord {
                slots,
                spacing,
                revision: known.map_or(1, |known| known.revision + 1),
                create_time: known.map_or(now.wall, |known| known.create_time),
                update_time: now.wall,
                host,
            }))),
        };
        Ok(Decision { changes: change.into_iter().collect(), reply: Reply::Done, ..Decision::nothing() })
    }
}
