//! Who abuses the ports: connections that say nothing, handshakes that never end, HTTP/2 in every way that has
//! stopped servers. Meanwhile an agent connects, people are answered, memory stays within a bound, and afterwards
//! every descriptor is free. Frames are written by hand: no client library sends what these do.

use std::{
    fs,
    future::Future,
    net::{Ipv4Addr, SocketAddrV4},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fleet_tests::{
    Finished, Fleet, FleetOptions, eventually,
    fleet::{GRPC_PORT, HTTP_PORT},
};
use mirror_certs::{CaBundle, client_config};
use mirror_coordinator::{
    connections::IDENTITY_CONNECTIONS_MAX as IDENTITY_PLACES, http::CONNECTIONS_MAX as HTTP_PLACES,
    listener::HANDSHAKES_MAX as HANDSHAKE_PLACES,
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, WriteHalf},
    net::{TcpSocket, TcpStream},
    runtime::Runtime,
    task::JoinSet,
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, ClientConnection},
};

use crate::foreign::{Papers, Talk};

/// How long an agent may take to connect, and a person's call, whoever abuses the ports meanwhile, where the processors
/// are the test's own; so much longer as others have them, see [`slowness`].
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// On a machine that is so slow that this is longer: so many times what the slowest of them takes in peace.
const ANSWER_TIMES_MAX: u32 = 5;
/// How long it is looked how much of the processors is to be had.
const SLOWNESS_TIME: Duration = Duration::from_millis(200);
/// However few of them there are, the answers may not take longer by more than this.
const SLOWNESS_MAX: f64 = 3.0;
/// Where agents, people and probes come from in this test.
const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// An address that only abuse comes from.
const ELSEWHERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 66);
/// Pause before who was cut or let go comes again.
const REDIAL_PAUSE: Duration = Duration::from_secs(2);
/// The same for those who hold requests open: each connection is megabytes of them, and what is tried is that they are
/// held, not how fast they are made.
const HOLD_PAUSE: Duration = Duration::from_secs(10);
/// Memory of the coordinator's process under any of this, in bytes.
const MEMORY_BYTES_MAX: u64 = 320 << 20;
/// Descriptors that it may hold afterwards beyond those before: those who looked, and a file of the store.
const DESCRIPTORS_LEFT_MAX: usize = 8;
/// Connections that say nothing.
const IDLE: usize = 2_000;
/// Handshakes that are begun and never ended.
const HALF_FINISHED: usize = 500;
/// Connections of each attack on HTTP/2.
const ABUSERS: usize = 8;
/// Frames of a flood that are written at once.
const BATCH: u32 = 200;
/// Descriptors that this test needs itself.
const OWN_DESCRIPTORS: u64 = 4_096;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// The largest frame that is always allowed, in bytes.
const FRAME_BYTES_MAX: usize = 16_384;

/// One HTTP/2 frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header in HPACK, as a literal that is never indexed; a name and value under 127 bytes, or a longer value.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x10];
    for text in [name, value] {
        let length = text.len();
        if length < 127 {
            bytes.push(u8::try_from(length).expect("it is short"));
        } else {
            bytes.push(127);
            let mut rest = length - 127;
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128 + 128).expect("seven bits and one"));
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).expect("seven bits"));
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The headers of a call that nobody in particular may make.
fn call() -> Vec<u8> {
    let headers = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", "coordinator"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    headers.iter().flat_map(|(name, value)| header(name, value)).collect()
}

/// The odd numbers of a client's streams.
fn streams() -> impl Iterator<Item = u32> {
    (0..(1 << 30)).map(|n| 2 * n + 1)
}

/// Whom all this is aimed at.
#[derive(Clone)]
struct Target {
    address: Ipv4Addr,
    /// Where the abuse comes from.
    from: Ipv4Addr,
    /// Without a certificate, and with that of an agent whose host was taken over.
    tls: [Arc<ClientConfig>; 2],
    /// Frames, bytes or connections that one abuser got rid of.
    sent: Arc<AtomicU64>,
    /// Connections that are held open for nothing, of all abusers.
    held: Arc<AtomicUsize>,
}

/// One connection more that is held open, until it is dropped.
struct Held(Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An HTTP/2 connection that is written by hand; what comes is thrown away. Dropping it closes it.
struct Http2 {
    write: WriteHalf<TlsStream<TcpStream>>,
    /// Ends when the other end has closed it.
    rest: JoinSet<std::io::Result<u64>>,
}

type Attack = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;

impl Target {
    fn of(fleet: &Fleet, stolen: &Papers, from: Ipv4Addr) -> Self {
        let ca = fs::read_to_string(fleet.admin_dir().join("ca.pem")).expect("the fleet's CA");
        let bundle = CaBundle::from_pem(&ca).expect("a bundle");
        let config = |identity| Arc::new(client_config(&bundle, identity).expect("a configuration"));
        let tls = [config(None), config(Some((stolen.0.as_str(), stolen.1.as_str())))];
        Self { address: fleet.address(), from, tls, sent: Arc::default(), held: Arc::default() }
    }

    async fn dial(&self, port: u16) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddrV4::new(self.from, 0).into())?;
        socket.connect(SocketAddrV4::new(self.address, port).into()).await
    }

    fn count(&self, more: u32) {
        self.sent.fetch_add(more.into(), Ordering::Relaxed);
    }

    async fn tls(&self, who: usize) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::IpAddress(std::net::IpAddr::from(self.address).into());
        let connector = TlsConnector::from(Arc::clone(&self.tls[who % 2]));
        connector.connect(name, self.dial(GRPC_PORT).await?).await
    }

    fn hold(&self) -> Held {
        self.held.fetch_add(1, Ordering::Relaxed);
        Held(Arc::clone(&self.held))
    }

    /// An HTTP/2 connection on which these settings were made.
    async fn http2(&self, who: usize, settings: &[u8]) -> std::io::Result<Http2> {
        let (mut read, mut write) = tokio::io::split(self.tls(who).await?);
        write.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        write.write_all(&frame(SETTINGS, 0, 0, settings)).await?;
        let mut rest = JoinSet::new();
        rest.spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
        Ok(Http2 { write, rest })
    }

    /// Writes batches of frames until the other end has had enough, again and again.
    async fn flood(
        self,
        who: usize,
        settings: &'static [u8],
        batch: fn(u32) -> Vec<u8>,
    ) -> std::io::Result<()> {
        loop {
            let Http2 { mut write, rest: _rest } = self.http2(who, settings).await?;
            for from in (0..).step_by(BATCH as usize) {
                let bytes: Vec<u8> = (from..from + BATCH).flat_map(batch).collect();
                if write.write_all(&bytes).await.and(write.flush().await).is_err() {
                    break;
                }
                self.count(BATCH);
            }
        }
    }

    async fn idle(self, port: u16) -> std::io::Result<()> {
        let mut stream = self.dial(port).await?;
        let _held = self.hold();
        self.count(1);
        stream.read_u8().await.map(drop)
    }

    async fn half_a_handshake(self) -> std::io::Result<()> {
        let name = ServerName::IpAddress(std::net::IpAddr::from(self.address).into());
        let mut hello = Vec::new();
        let mut client = ClientConnection::new(Arc::clone(&self.tls[0]), name).expect("a client");
        client.write_tls(&mut hello)?;
        let mut stream = self.dial(GRPC_PORT).await?;
        stream.write_all(&hello).await?;
        let _held = self.hold();
        self.count(1);
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await.map(drop)
    }

    /// A request, one byte at a time.
    async fn slow_headers(self, who: usize) -> std::io::Result<()> {
        loop {
            let Http2 { mut write, rest: _rest } = self.http2(who, &[]).await?;
            for byte in frame(HEADERS, END_HEADERS, 1, &call()) {
                write.write_all(&[byte]).await?;
                write.flush().await?;
                self.count(1);
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }

    /// As many requests at once as are let in, with headers as long as they may be, and none is ever finished.
    async fn wide(self, who: usize, settings: &'static [u8]) -> std::io::Result<()> {
        let mut block = call();
        block.extend(header("x-long", &"x".repeat(14 << 10)));
        let Http2 { mut write, mut rest } = self.http2(who, settings).await?;
        for stream in streams().take(128) {
            write.write_all(&frame(HEADERS, END_HEADERS, stream, &block)).await?;
            self.count(1);
        }
        write.write_all(&frame(DATA, 0, 1, &[0, 0, 0, 255, 0])).await?;
        write.flush().await?;
        let _held = self.hold();
        rest.join_next().await;
        Ok(())
    }

    async fn http1_slowly(self) -> std::io::Result<()> {
        let mut stream = self.dial(HTTP_PORT).await?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").await?;
        loop {
            stream.write_all(b"x").await?;
            self.count(1);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    async fn plaintext(self) -> std::io::Result<()> {
        loop {
            let mut stream = self.dial(GRPC_PORT).await?;
            stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET / HTTP/1.1\r\n\r\n").await?;
            let mut rest = Vec::new();
            // However it ends: what matters is that it does.
            drop(stream.read_to_end(&mut rest).await);
            self.count(1);
        }
    }
}

/// One way to abuse the ports.
#[derive(Clone, Copy)]
struct Kind {
    what: &'static str,
    /// How many do it.
    abusers: usize,
    /// Connections that they hold open all together, where that is the abuse: so many have a place, and who comes when
    /// all are taken pushes the oldest one out.
    places: usize,
    /// Pause before one who was cut comes again.
    pause: Duration,
    /// What one of them does until he is cut.
    attack: fn(Target, usize) -> Attack,
}

impl Kind {
    const fn new(what: &'static str, abusers: usize, attack: fn(Target, usize) -> Attack) -> Self {
        Self { what, abusers, places: 0, pause: REDIAL_PAUSE, attack }
    }

    const fn holding(self, places: usize) -> Self {
        Self { places, ..self }
    }

    const fn unhurried(self) -> Self {
        Self { pause: HOLD_PAUSE, ..self }
    }
}

/// Abuse that goes on until it is dropped: who was cut comes again.
struct Abuse {
    kind: Kind,
    /// What each of the abusers has sent.
    sent: Vec<Arc<AtomicU64>>,
    held: Arc<AtomicUsize>,
    /// How the last of them that was cut was cut.
    last_end: Arc<Mutex<String>>,
    tasks: JoinSet<()>,
}

impl Drop for Abuse {
    /// However the test ends: what was done until then.
    fn drop(&mut self) {
        println!("{}", self.tell());
    }
}

impl Abuse {
    fn begin(kind: Kind, target: &Target, runtime: &Runtime) -> Self {
        let (mut sent, mut tasks) = (Vec::new(), JoinSet::new());
        let last_end = Arc::new(Mutex::new("nobody was cut".to_owned()));
        for who in 0..kind.abusers {
            let (attack, own, last) = (kind.attack, Arc::<AtomicU64>::default(), Arc::clone(&last_end));
            let target = Target { sent: Arc::clone(&own), ..target.clone() };
            sent.push(own);
            let again_and_again = async move {
                loop {
                    let end = attack(target.clone(), who).await;
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = format!("{end:?}");
                    tokio::time::sleep(kind.pause).await;
                }
            };
            tasks.spawn_on(again_and_again, runtime.handle());
        }
        Self { kind, sent, held: Arc::clone(&target.held), last_end, tasks }
    }

    fn sent(&self) -> u64 {
        self.sent.iter().map(|sent| sent.load(Ordering::Relaxed)).sum()
    }

    /// Every abuser has done something, and at least half of the places are taken: some come and go at any moment.
    fn is_in_force(&self) -> bool {
        let places = self.kind.abusers.min(self.kind.places);
        let held = self.held.load(Ordering::Relaxed);
        self.sent.iter().all(|sent| sent.load(Ordering::Relaxed) > 0) && held >= places / 2
    }

    fn tell(&self) -> String {
        let busy = self.sent.iter().filter(|sent| sent.load(Ordering::Relaxed) > 0).count();
        let last_end = self.last_end.lock().unwrap_or_else(PoisonError::into_inner);
        format!(
            "{}: {busy} of {} sent {}; the last end: {last_end}",
            self.kind.what,
            self.kind.abusers,
            self.sent()
        )
    }
}

/// What is tried.
fn attacks() -> Vec<Kind> {
    const NO_WINDOW: &[u8] = &[0, 4, 0, 0, 0, 0];
    vec![
        Kind::new("idle connections", IDLE, |target, _| Box::pin(target.idle(GRPC_PORT)))
            .holding(HANDSHAKE_PLACES),
        Kind::new("half-finished handshakes", HALF_FINISHED, |target, _| Box::pin(target.half_a_handshake()))
            .holding(HANDSHAKE_PLACES),
        Kind::new("plaintext", ABUSERS, |target, _| Box::pin(target.plaintext())),
        Kind::new("slow headers", 200, |target, who| Box::pin(target.slow_headers(who))),
        Kind::new("streams that are reset at once", ABUSERS, |target, who| {
            Box::pin(target.flood(who, &[], |n| {
                let mut both = frame(HEADERS, END_HEADERS, 2 * n + 1, &call());
                both.extend(frame(RST_STREAM, 0, 2 * n + 1, &8_u32.to_be_bytes()));
                both
            }))
        }),
        Kind::new("more streams than are allowed", ABUSERS, |target, who| {
            Box::pin(target.flood(who, &[], |n| frame(HEADERS, END_HEADERS, 2 * n + 1, &call())))
        }),
        Kind::new("streams that the server has to reset", ABUSERS, |target, who| {
            Box::pin(target.flood(who, &[], |n| {
                let mut both = frame(HEADERS, END_HEADERS, 2 * n + 1, &call());
                both.extend(frame(WINDOW_UPDATE, 0, 2 * n + 1, &[0; 4]));
                both
            }))
        }),
        Kind::new("headers without an end", ABUSERS, |target, who| {
            Box::pin(target.flood(who, &[], |n| {
                let kind = if n == 0 { HEADERS } else { CONTINUATION };
                frame(kind, 0, 1, &header("x", &"x".repeat(FRAME_BYTES_MAX / 16)))
            }))
        }),
        Kind::new("empty continuations", ABUSERS, |target, who| {
            Box::pin(target.flood(who, &[], |n| {
                if n == 0 { frame(HEADERS, 0, 1, &call()) } else { frame(CONTINUATION, 0, 1, &[]) }
            }))
        }),
        Kind::new("pings", ABUSERS, |target, who| {
            Box::pin(target.flood(who, &[], |n| frame(PING, 0, 0, &u64::from(n).to_be_bytes())))
        }),
        Kind::new("settings", ABUSERS, |target, who| {
            Box::pin(target.flood(who, &[], |_| frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9])))
        }),
        Kind::new("empty data", ABUSERS, |target, who| {
            Box::pin(target.flood(who, &[], |n| {
                if n == 0 { frame(HEADERS, END_HEADERS, 1, &call()) } else { frame(DATA, 0, 1, &[]) }
            }))
        }),
        Kind::new("requests that are never finished", 300, |target, who| Box::pin(target.wide(who, &[])))
            .holding(IDENTITY_PLACES)
            .unhurried(),
        Kind::new("zero windows", 300, |target, who| Box::pin(target.wide(who, NO_WINDOW)))
            .holding(IDENTITY_PLACES)
            .unhurried(),
        Kind::new("idle connections to the HTTP port", IDLE, |target, _| Box::pin(target.idle(HTTP_PORT)))
            .holding(HTTP_PLACES),
        Kind::new("slow headers at the HTTP port", 400, |target, _| Box::pin(target.http1_slowly())),
    ]
}

fn memory_of(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") << 10
}

fn descriptors_of(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// A fleet, and who looks at how it is served.
struct Scene {
    fleet: Fleet,
    runtime: Runtime,
    /// One agent connects by hand, and one is in the hands of who abuses.
    agent: Papers,
    stolen: Papers,
    /// The coordinator's process.
    pid: u32,
}

impl Scene {
    fn set() -> Self {
        let agents = ["edge1", "edge2", "edge3"].map(str::to_owned).to_vec();
        let options = FleetOptions { agents, ..FleetOptions::default() };
        let mut fleet = Fleet::start(options).expect("a fleet starts");
        fleet.kill_agent(1);
        fleet.kill_agent(2);
        let (agent, stolen) = (Papers::of_agent(&fleet, 1), Papers::of_agent(&fleet, 2));
        let pid = fleet.coordinator.as_ref().expect("it runs").pid();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { fleet, runtime: runtime.expect("a runtime"), agent, stolen, pid }
    }

    /// How long an agent takes to its welcome, a person to the answer, and a probe to its own; or who got none.
    fn answers(&self) -> Result<[Duration; 3], String> {
        let timed = |work: &dyn Fn() -> Result<(), String>| {
            let began = Instant::now();
            work().map(|()| began.elapsed())
        };
        let done = |finished: Finished| match finished.code {
            0 => Ok(()),
            code => Err(format!("{}: code {code}, {}", finished.line, finished.stderr.trim())),
        };
        let health = format!("http://{}:{HTTP_PORT}/readyz", self.fleet.address());
        Ok([
            timed(&|| {
                let begun = self.runtime.block_on(Talk::begin(&self.fleet, Some(&self.agent)));
                begun.map(drop).map_err(|status| format!("the agent: {status}"))
            })?,
            timed(&|| done(self.fleet.mirrorctl(&["status"])))?,
            timed(&|| done(Finished::run(std::process::Command::new("curl").args(["-fsS", &health]))))?,
        ])
    }

    /// Abuses the ports until agent, person and probe are answered within the bound all the same; `slowest`: what the
    /// slowest of them takes in peace.
    ///
    /// A flood costs only the address that it comes from: everybody else is answered whenever he asks. Who shares that
    /// address may have to give way to those of the flood that come while he shakes hands; he comes again, as agents and
    /// people do.
    fn endure(&self, kind: Kind, from: Ipv4Addr, slowest: Duration) {
        let what = format!("{} from {from}", kind.what);
        let bound = ANSWER_MAX.mul_f64(slowness()).max(slowest * ANSWER_TIMES_MAX);
        let mut abuse = Abuse::begin(kind, &Target::of(&self.fleet, &self.stolen, from), &self.runtime);
        eventually(&format!("{what} are in force"), || abuse.is_in_force().then_some(()));
        let mut seen = Vec::new();
        eventually(&format!("answers in {bound:?} in spite of {what}"), || {
            let took = self.answers();
            assert!(took.is_ok() || from == HERE, "in spite of {what}: {took:?}");
            let in_time = took.as_ref().is_ok_and(|took| took.iter().all(|took| *took < bound));
            seen.push(took);
            (in_time && abuse.is_in_force()).then_some(())
        });
        let (memory, sent) = (memory_of(self.pid), abuse.sent());
        let held = abuse.held.load(Ordering::Relaxed);
        println!(
            "from {from}, {held} held, bound {bound:?}: agent, person, probe in {seen:?}; {} MiB",
            memory >> 20
        );
        assert!(memory < MEMORY_BYTES_MAX, "{what}: {} MiB", memory >> 20);
        eventually(&format!("{what} went on all the while"), || (abuse.sent() > sent).then_some(()));
        self.runtime.block_on(abuse.tasks.shutdown());
    }
}

/// How many times longer work takes than on processors that nobody else uses: 1 where they are the test's own, and never
/// more than [`SLOWNESS_MAX`].
///
/// Calls of a few milliseconds are served at once beside others' long work, so that what they take in peace does not tell.
fn slowness() -> f64 {
    use rustix::time::{ClockId, clock_gettime};
    let spin = || {
        let (began, mut turns) = (Instant::now(), 0_u64);
        while began.elapsed() < SLOWNESS_TIME {
            turns = std::hint::black_box(turns + 1);
        }
        let had = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(had).expect("a time that was had").as_secs_f64() / began.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let spinning: Vec<_> = (0..processors).map(|_| scope.spawn(spin)).collect();
        let shares = spinning.into_iter().map(|spinning| spinning.join().expect("it spins"));
        (processors as f64 / shares.sum::<f64>()).clamp(1.0, SLOWNESS_MAX)
    })
}

/// Lets this process open enough; says so where it may not.
fn raise_own_limit() -> bool {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let enough = limit.maximum.is_none_or(|maximum| maximum >= OWN_DESCRIPTORS);
    let wanted = Rlimit { current: Some(OWN_DESCRIPTORS), ..limit };
    let raised =
        limit.current.is_none_or(|now| now >= OWN_DESCRIPTORS) || setrlimit(Resource::Nofile, wanted).is_ok();
    if !(enough && raised) {
        println!("skipped: {OWN_DESCRIPTORS} open files are not allowed here");
    }
    enough && raised
}

#[test]
fn whoever_abuses_the_ports_others_are_served() {
    if !raise_own_limit() {
        return;
    }
    let scene = Scene::set();
    let quiet = scene.answers().expect("answers in peace");
    let slowest = quiet.into_iter().max().expect("three of them");
    println!("in peace: agent, person, probe in {quiet:?}; {} MiB", memory_of(scene.pid) >> 20);
    let before = descriptors_of(scene.pid);
    for kind in attacks() {
        scene.endure(kind, ELSEWHERE, slowest);
        if kind.places > 0 {
            scene.endure(kind, HERE, slowest);
        }
    }
    let Scene { fleet, pid, .. } = scene;
    eventually("descriptors are free again", || {
        (descriptors_of(pid) <= before + DESCRIPTORS_LEFT_MAX).then_some(())
    });
    assert_eq!(fleet.json(&["agent", "show", "edge1"])["connected"], true, "it was never cut");
    let output = fleet.agents[0].as_ref().map(fleet_tests::Process::output).unwrap_or_default();
    assert_eq!(output.matches("connected").count(), 1, "{output}");
}

#[test]
fn tls_1_2_is_not_spoken() {
    let fleet =
        Fleet::start(FleetOptions { agents: Vec::new(), ..FleetOptions::default() }).expect("a fleet starts");
    let url = format!("https://{}/", fleet.server());
    let ask = |more: &[&str]| {
        Finished::run(
            std::process::Command::new("curl").args(["-ksS", "--http2", "-m", "20"]).args(more).arg(&url),
        )
    };
    let old = ask(&["--tls-max", "1.2"]);
    assert_eq!(old.code, 35, "{}{}", old.stdout, old.stderr);
    assert_eq!(ask(&[]).code, 0, "it is TLS that it speaks");
}
