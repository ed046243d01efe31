//! The network: one connection at a time from each agent, each a pair of first-in-first-out lines that delay,
//! stall while nothing passes, and lose what is in flight when they break. Reports over an old connection may
//! still arrive after the hello of a new one.

use std::collections::VecDeque;

use fleet::{
    id::Epoch,
    input::{AgentInput, Input, Message},
};

use crate::{
    cover::Fault,
    shell::Tag,
    world::{Event, World},
};

pub(crate) type StreamId = u64;

/// From the agent to the coordinator.
pub(crate) const UP: usize = 0;
/// From the coordinator to the agent.
pub(crate) const DOWN: usize = 1;

/// Keepalive 20 s, answer within 10 s, and TCP's own slack: an end notices a dead line within this.
const NOTICE_MS: (u64, u64) = (10_000, 45_000);

/// Longest time that something is on its way, in ms.
const LAG_MS_MAX: u64 = 60_000;

/// What is on a line.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "a handful is on the lines at a time")]
pub(crate) enum Packet {
    Up(AgentInput),
    Down(Message),
}

impl Packet {
    fn line(&self) -> usize {
        match self {
            Self::Up(_) => UP,
            Self::Down(_) => DOWN,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) host: usize,
    agent_open: bool,
    coordinator_open: bool,
    pub(crate) session: Option<Epoch>,
    last: [u64; 2],
    dead_after: [u64; 2],
    stalled: [VecDeque<Packet>; 2],
    /// Until then what goes up is somewhere on the way.
    lags_until: u64,
}

impl World {
    /// A new connection from this host, if one can be made now.
    pub(crate) fn connect(&mut self, host: usize) -> Option<StreamId> {
        if self.coordinator.engine.is_none() || self.hosts[host].blocked != [false; 2] {
            return None;
        }
        let id = self.next_id();
        let stream = Stream {
            host,
            agent_open: true,
            coordinator_open: true,
            session: None,
            last: [self.time; 2],
            dead_after: [u64::MAX; 2],
            stalled: Default::default(),
            lags_until: 0,
        };
        self.streams.insert(id, stream);
        Some(id)
    }

    pub(crate) fn transmit(&mut self, id: StreamId, packet: Packet) {
        self.put_on_line(id, packet);
        if !self.calm && self.rng.chance(self.config.snaps) {
            let half_open = self.rng.chance(500);
            self.cover.fault(if half_open { Fault::HalfOpen } else { Fault::CutLink });
            self.cut(id, half_open);
        }
    }

    fn put_on_line(&mut self, id: StreamId, packet: Packet) {
        let latency = self.rng.between(0, self.config.latency);
        let time = self.time;
        let line = packet.line();
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if self.hosts[stream.host].blocked[line] || !stream.stalled[line].is_empty() {
            stream.stalled[line].push_back(packet);
            return;
        }
        stream.last[line] = stream.last[line].max(time + latency);
        let at = stream.last[line];
        self.at(at, Event::Packet(id, packet));
    }

    /// Says `message` over this session, if it still stands.
    pub(crate) fn say(&mut self, session: Epoch, message: Message) {
        let found = self.streams.iter().find(|(_, s)| s.session == Some(session) && s.coordinator_open);
        let Some((&id, _)) = found else { return };
        let closes = matches!(message, Message::Close(_));
        self.transmit(id, Packet::Down(message));
        if closes {
            let lag = self.streams[&id].lags_until.saturating_sub(self.time);
            let delay = self.rng.between(0, self.config.latency);
            self.after(lag + delay, Event::CoordinatorNotices(id));
            let late = self.rng.between(NOTICE_MS.0, NOTICE_MS.1);
            self.after(late, Event::AgentNotices(id));
        }
    }

    pub(crate) fn arrive(&mut self, id: StreamId, packet: Packet) {
        let line = packet.line();
        let time = self.time;
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if time > stream.dead_after[line] {
            return;
        }
        let lags = line == UP && time < stream.lags_until;
        if self.hosts[stream.host].blocked[line] || lags {
            stream.stalled[line].push_back(packet);
            return;
        }
        let host = stream.host;
        match packet {
            Packet::Up(mut input) if stream.coordinator_open && self.coordinator.engine.is_some() => {
                let hello = matches!(input, AgentInput::Hello { .. });
                if let AgentInput::Hello { connection, .. } = &mut input {
                    *connection = id;
                    if self.hello_is_late(host, id) {
                        self.cover.fault(Fault::LateHello);
                    }
                }
                if !hello && self.hosts[host].stream != Some(id) {
                    self.cover.fault(Fault::LateReport);
                }
                let tag = if hello { Tag::Hello(id) } else { Tag::Nothing };
                self.submit(Input::Agent(input), tag);
            }
            Packet::Down(message) if stream.agent_open => self.hear(host, id, message),
            Packet::Up(_) | Packet::Down(_) => {}
        }
    }

    /// Whether a newer connection of the host has said hello before.
    fn hello_is_late(&mut self, host: usize, id: StreamId) -> bool {
        let newest = self.newest_hello.entry(host).or_insert(id);
        let late = *newest > id;
        *newest = id.max(*newest);
        late
    }

    /// The connection breaks now; one end may notice much later.
    pub(crate) fn cut(&mut self, id: StreamId, half_open: bool) {
        let (time, latency) = (self.time, self.config.latency);
        // What is in flight upwards may be on its way for longer than the agent needs for a new connection.
        let lag = if self.rng.chance(700) { self.rng.between(0, LAG_MS_MAX) } else { 0 };
        let lost_from = [time + lag + self.rng.between(0, latency), time + self.rng.between(0, latency)];
        let Some(stream) = self.streams.get_mut(&id) else { return };
        for line in [UP, DOWN] {
            stream.dead_after[line] = stream.dead_after[line].min(lost_from[line]);
            stream.stalled[line].clear();
        }
        stream.lags_until = time + lag;
        self.at(time + lag, Event::Arrives(id));
        let mut delays = [self.rng.between(0, 1_000), self.rng.between(0, 1_000)];
        if half_open {
            delays[self.rng.index(2)] = self.rng.between(NOTICE_MS.0, NOTICE_MS.1);
        }
        self.after(delays[0].max(latency), Event::AgentNotices(id));
        self.after(delays[1].max(lag + latency), Event::CoordinatorNotices(id));
    }

    /// What was long on the way arrives.
    pub(crate) fn lagged_arrive(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        for packet in std::mem::take(&mut stream.stalled[UP]) {
            self.arrive(id, packet);
        }
    }

    /// Nothing passes on these lines of a host until it heals.
    pub(crate) fn block(&mut self, host: usize, lines: [bool; 2]) {
        self.hosts[host].blocked = lines;
        let span = if self.rng.chance(500) {
            self.rng.between(1, 120) * 60_000
        } else {
            self.rng.between(100, 40_000)
        };
        self.after(span, Event::Heals(host));
        let streams: Vec<StreamId> =
            self.streams.iter().filter(|(_, s)| s.host == host).map(|(id, _)| *id).collect();
        for id in streams {
            // With either line dead neither end hears answers: both notice, unless it heals before.
            let delay = self.rng.between(NOTICE_MS.0, NOTICE_MS.1);
            if delay < span {
                self.after(delay, Event::AgentNotices(id));
            }
            let delay = self.rng.between(NOTICE_MS.0, NOTICE_MS.1);
            if delay < span {
                self.after(delay, Event::CoordinatorNotices(id));
            }
        }
    }

    pub(crate) fn heal(&mut self, host: usize) {
        self.hosts[host].blocked = [false; 2];
        self.dial_soon(host);
        let streams: Vec<StreamId> =
            self.streams.iter().filter(|(_, s)| s.host == host).map(|(id, _)| *id).collect();
        for id in streams {
            for line in [UP, DOWN] {
                let Some(stream) = self.streams.get_mut(&id) else { continue };
                for packet in std::mem::take(&mut stream.stalled[line]) {
                    self.put_on_line(id, packet);
                }
            }
        }
    }

    /// The agent's end is closed: by itself, or because it noticed.
    pub(crate) fn agent_closes(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.agent_open {
            return;
        }
        stream.agent_open = false;
        let host = stream.host;
        let lag = stream.lags_until.saturating_sub(self.time);
        let late = self.time + lag + self.rng.between(0, self.config.latency * 3);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.dead_after[UP] = stream.dead_after[UP].min(late);
        }
        let notice = if self.rng.chance(700) {
            self.rng.between(0, 500)
        } else {
            self.rng.between(NOTICE_MS.0, NOTICE_MS.1)
        };
        self.after(notice.max(lag + self.config.latency * 3), Event::CoordinatorNotices(id));
        if self.hosts[host].stream == Some(id) {
            self.hosts[host].stream = None;
            if std::mem::take(&mut self.hosts[host].welcomed) {
                self.hosts[host].confirmed = self.time;
            }
            self.alone_soon(host);
            self.dial_soon(host);
        }
        self.bury(id);
    }

    /// The coordinator's end is closed because it noticed.
    pub(crate) fn coordinator_closes(&mut self, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if !stream.coordinator_open {
            return;
        }
        stream.coordinator_open = false;
        let (host, session) = (stream.host, stream.session);
        if let (Some(session), Some(agent)) = (session, self.hosts[host].uid) {
            self.submit(Input::Agent(AgentInput::Gone { agent, session }), Tag::Nothing);
        }
        let delay = self.rng.between(0, 500);
        self.after(delay.max(self.config.latency), Event::AgentNotices(id));
        self.bury(id);
    }

    /// The coordinator died, or begins anew: its ends of all connections are gone.
    pub(crate) fn hang_up_all(&mut self, silently: bool) {
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.coordinator_open = false;
            }
            let notice = if silently {
                self.rng.between(NOTICE_MS.0, NOTICE_MS.1)
            } else {
                self.rng.between(0, 1_000)
            };
            self.after(notice, Event::AgentNotices(id));
            self.bury(id);
        }
    }

    /// Gives a connection that began with a welcome its session.
    pub(crate) fn session_began(&mut self, id: StreamId, session: Epoch) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.session = Some(session);
        }
    }

    fn bury(&mut self, id: StreamId) {
        if self.streams.get(&id).is_some_and(|s| !s.agent_open && !s.coordinator_open) {
            self.streams.remove(&id);
        }
    }
}
