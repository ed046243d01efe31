//! Rules for starts: what is offered is within every limit of that moment, counted again from what really happened:
//! slots and spacing of upstream hosts, their breakers, windows, and room on disks.

use std::{collections::BTreeMap, time::Duration};

use fleet::{
    Engine,
    agent::Root,
    attempt::{AttemptRecord, AttemptState, End, Role},
    defaults,
    engine::WaitReason,
    id::AttemptId,
    outcome::ExitClass,
    record::{Change, Key, Record, Volatile},
    time::{Mono, Now},
};

use super::Checks;

/// An upstream host, as the attempts that asked it tell.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    last_start: Option<Mono>,
    failures: u32,
    pause: Option<Duration>,
    /// Closed to all until then; or the attempt that tries it for the others.
    shut: Option<(Mono, Option<AttemptId>)>,
}

fn host_of(attempt: &AttemptRecord) -> Option<&String> {
    Some(&attempt.upstream_host).filter(|host| attempt.role == Role::Origin && !host.is_empty())
}

impl Checks {
    /// What was decided, before it is applied; as it would be without a planted fault.
    pub(crate) fn decided(&mut self, engine: &Engine, now: Now, changes: &[Change]) -> Result<(), String> {
        for change in changes {
            match change {
                Change::Put(Record::Attempt(new)) => self.attempt_moves(engine, now, new)?,
                Change::Put(Record::Upstream(record)) => {
                    self.upstreams.insert(record.host.clone(), record.clone());
                }
                Change::Delete(Key::Upstream(host)) => drop(self.upstreams.remove(host)),
                Change::Delete(Key::Attempt(_, id)) => self.free(*id),
                Change::Volatile(Volatile::SessionOpened(agent, session)) => {
                    self.disks.insert(*agent, session.facts.roots.clone());
                }
                Change::Volatile(Volatile::Inventory(agent, roots)) => {
                    self.disks.insert(*agent, roots.clone());
                }
                Change::Volatile(Volatile::GivenUp(agent)) => {
                    let on_it = engine.attempts().filter(|a| a.agent == *agent && a.state.is_out());
                    for id in on_it.map(|attempt| attempt.id).collect::<Vec<_>>() {
                        self.free(id);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A coordinator starts: how hosts answered is forgotten, and what is offered counts as just begun.
    pub(super) fn restart_gates(&mut self, mono: Mono, engine: &Engine) {
        self.gates.clear();
        let offered = engine.attempts().filter(|a| matches!(a.state, AttemptState::Offered { .. }));
        for host in offered.filter_map(host_of) {
            self.gates.entry(host.clone()).or_default().last_start = Some(mono);
        }
    }

    fn attempt_moves(&mut self, engine: &Engine, now: Now, new: &AttemptRecord) -> Result<(), String> {
        let Some(old) = engine.attempt(new.id) else { return Ok(()) };
        if old.state.is_pending() && new.state.is_out() {
            self.check_start(engine, now, new)?;
            if let Some(host) = host_of(new) {
                self.gates.entry(host.clone()).or_default().starts(now, new.id);
            }
        } else if old.state.is_out() && !new.state.is_out() {
            let heard = self.really_heard(new);
            if let Some(gate) = host_of(old).and_then(|host| self.gates.get_mut(host)) {
                gate.hears(now, new.id, heard);
            }
        }
        Ok(())
    }

    /// Whether the pull of an attempt that ends reached its host, by what happened on the machine; `None`: it tells
    /// nothing.
    fn really_heard(&self, new: &AttemptRecord) -> Option<bool> {
        let AttemptState::Ended { epoch, end, .. } = &new.state else { return None };
        let work = (new.id, *epoch);
        match end {
            End::Succeeded(_) => Some(true),
            End::Failed(_) if self.unreached.contains(&work) => Some(false),
            End::Failed(outcome) | End::Held(outcome) => {
                let own = [
                    ExitClass::LocalIo,
                    ExitClass::Internal,
                    ExitClass::Config,
                    ExitClass::RejectedByAgent,
                    ExitClass::Interrupted,
                ];
                (self.pulled.contains_key(&work) && !own.contains(&outcome.class)).then_some(true)
            }
            End::Cancelled(_) | End::Lost => None,
        }
    }

    fn check_start(&self, engine: &Engine, now: Now, new: &AttemptRecord) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{} was offered {what}: {new:?}", new.id));
        if self.lacks_room(engine, new) {
            return wrong("below the reserve of its volume");
        }
        if is_outside(engine, now, new) {
            return wrong("outside of its windows");
        }
        let Some(host) = host_of(new) else { return Ok(()) };
        let out = engine.attempts().filter(|other| {
            other.state.is_out() && host_of(other) == Some(host) && !self.given_up(other.agent, now.mono)
        });
        if out.count() >= usize::try_from(self.slots_of(host)).expect("small") {
            return wrong("above the slots of its upstream host");
        }
        let Some(gate) = self.gates.get(host) else { return Ok(()) };
        if gate.last_start.is_some_and(|last| last.plus(self.spacing_of(host)) > now.mono) {
            return wrong("too soon after another start at its upstream host");
        }
        if gate.is_shut(now.mono) { wrong("at an open breaker") } else { Ok(()) }
    }

    fn lacks_room(&self, engine: &Engine, attempt: &AttemptRecord) -> bool {
        let wish = engine.run(attempt.id.run).map(|run| &run.wish);
        let grows = wish.is_some_and(|wish| !wish.dry_run && !wish.reclaim);
        let roots = self.disks.get(&attempt.agent).map_or(&[][..], Vec::as_slice);
        let root = roots.iter().find(|root| root.name == attempt.destination.root());
        grows && root.is_some_and(|root| self.is_full(root))
    }

    fn is_full(&self, root: &Root) -> bool {
        let part = |percent: u64| root.total_bytes / 100 * percent;
        let reserve = part(self.limits.volume_reserve_percent.into()).max(self.limits.volume_reserve_bytes);
        root.free_bytes < reserve.min(part(10))
    }

    pub(super) fn slots_of(&self, host: &str) -> u32 {
        let set = self.upstreams.get(host).and_then(|record| record.slots);
        set.unwrap_or(self.limits.upstream_slots)
    }

    fn spacing_of(&self, host: &str) -> Duration {
        let set = self.upstreams.get(host).and_then(|record| record.spacing);
        set.unwrap_or(self.limits.upstream_spacing)
    }

    /// What holds a waiting attempt back, of the limits here.
    pub(super) fn start_reasons(
        &self,
        engine: &Engine,
        now: Now,
        attempt: &AttemptRecord,
    ) -> Vec<(WaitReason, bool)> {
        let gate = host_of(attempt).and_then(|host| Some((host, self.gates.get(host)?)));
        let spaced = gate.is_some_and(|(host, gate)| {
            gate.last_start.is_some_and(|last| last.plus(self.spacing_of(host)) > now.mono)
        });
        let mut reasons = vec![
            (WaitReason::OutsideWindow, is_outside(engine, now, attempt)),
            (WaitReason::UpstreamSpacing, spaced),
            (WaitReason::UpstreamBreaker, gate.is_some_and(|(_, gate)| gate.is_shut(now.mono))),
        ];
        let project = engine.project(attempt.project);
        let aside = engine.run(attempt.id.run).is_some_and(|run| run.wish.is_aside());
        let local =
            attempt.role == Role::Origin && !aside && project.is_some_and(|project| project.is_local());
        if engine.session(attempt.agent).is_some() && !local {
            reasons.push((WaitReason::DiskSpace, self.lacks_room(engine, attempt)));
        }
        reasons
    }

    /// A probe that tells nothing makes room for the next.
    fn free(&mut self, id: AttemptId) {
        for gate in self.gates.values_mut() {
            if gate.shut.is_some_and(|(_, probe)| probe == Some(id)) {
                gate.shut = Some((Mono(0), None));
            }
        }
    }
}

/// Whether nobody asked for the attempt's run, and no window is open.
fn is_outside(engine: &Engine, now: Now, attempt: &AttemptRecord) -> bool {
    let asked = engine.run(attempt.id.run).is_none_or(|run| run.by_person);
    let project = engine.project(attempt.project);
    let open = project.is_none_or(|project| project.record.spec.schedule.is_open(now.wall.to_utc()));
    attempt.role == Role::Origin && !asked && !open
}

impl Gate {
    fn is_shut(&self, now: Mono) -> bool {
        self.shut.is_some_and(|(until, _)| until > now)
    }

    fn starts(&mut self, now: Now, id: AttemptId) {
        self.last_start = Some(now.mono);
        self.shut = match self.shut {
            Some((_, None)) => Some((now.mono.plus(defaults::PROBE_PATIENCE), Some(id))),
            Some((_, Some(_))) | None => None,
        };
    }

    fn hears(&mut self, now: Now, id: AttemptId, reached: Option<bool>) {
        let probed = self.shut.is_some_and(|(_, probe)| probe == Some(id));
        match reached {
            Some(true) => (self.failures, self.pause, self.shut) = (0, None, None),
            Some(false) => {
                self.failures += 1;
                if probed || (self.shut.is_none() && self.failures >= defaults::BREAKER_FAILURES) {
                    let pause = self.pause.map_or(defaults::BREAKER_PAUSE, |pause| pause * 2);
                    let pause = pause.min(defaults::BREAKER_PAUSE_MAX);
                    (self.pause, self.shut) = (Some(pause), Some((now.mono.plus(pause), None)));
                }
            }
            None if probed => self.shut = Some((Mono(0), None)),
            None => {}
        }
    }
}

/// Records of upstream hosts, by host.
pub(super) type Upstreams = BTreeMap<String, fleet::upstream::UpstreamRecord>;
