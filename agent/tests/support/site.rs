//! The agent's program with a real rsync daemon, and a coordinator that says what a test wants.

use mirror_proto::v1;
use mirror_proto::v1::outcome::Class;

use super::coordinator::Session;
use super::upstream::{Upstream, tree_of};
use super::{Coordinator, Host, assignment};

/// An agent, its session, and an upstream of 41 files.
pub(crate) struct Site {
    pub(crate) coordinator: Coordinator,
    pub(crate) host: Host,
    pub(crate) upstream: Upstream,
    pub(crate) session: Session,
    runs: u128,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let mut coordinator = Coordinator::start().await;
        let mut host = Host::enrolled(&coordinator, &["127.0.0.0/8"]).await;
        host.start();
        let session = coordinator.welcomed().await;
        Self { coordinator, host, upstream: Upstream::start(), session, runs: 0 }
    }

    /// An assignment of the next run.
    pub(crate) fn next(&mut self) -> v1::Assignment {
        self.runs += 1;
        assignment(self.runs, u64::try_from(self.runs).unwrap(), &self.upstream.uri("m"))
    }

    pub(crate) async fn begin(&mut self, assignment: &v1::Assignment) {
        self.session.assign(assignment).await;
        self.session.answer().await.unwrap();
    }

    pub(crate) async fn end(&mut self) -> v1::Ended {
        let ended = self.session.ended().await;
        self.session.acknowledge(ended.key.clone().unwrap()).await;
        ended
    }

    pub(crate) async fn run(&mut self, assignment: v1::Assignment) -> v1::Outcome {
        self.begin(&assignment).await;
        self.end().await.outcome.unwrap()
    }

    /// A first copy.
    pub(crate) async fn copied() -> Self {
        let mut site = Self::start().await;
        let first = site.next();
        assert_eq!(site.run(first).await.class(), Class::Ok);
        site
    }

    pub(crate) async fn restart(&mut self) {
        self.host.kill();
        self.host.start();
        self.session = self.coordinator.welcomed().await;
    }

    pub(crate) fn tree(&self) -> std::path::PathBuf {
        self.host.root().join("debian")
    }

    pub(crate) fn same(&self) -> bool {
        tree_of(&self.tree()) == tree_of(&self.upstream.tree())
    }
}
