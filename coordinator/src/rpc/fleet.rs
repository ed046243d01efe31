//! The fleet as a whole: its status in one consistent view, the stop that outlives restarts, the audit log, and backups.

mod audit;
mod backup;

use std::sync::Arc;

use ::fleet::input::Ask;
use mirror_proto::{convert, v1};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::{agent, ask, project, user};
use crate::{Services, audit::origin, outbox::line::Line};

/// `mirror.v1.FleetService`.
#[derive(Debug)]
pub struct Fleet {
    services: Services,
    watches: Arc<Semaphore>,
    backups: Arc<Semaphore>,
}

impl Fleet {
    /// The service.
    #[must_use]
    pub fn new(services: Services) -> Self {
        Self { services, watches: audit::places(), backups: backup::places() }
    }

    fn status(&self) -> Response<v1::FleetStatus> {
        let now = self.services.driver.now();
        let view = self.services.driver.view();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Response::new(v1::FleetStatus {
            time: Some(convert::wall_to_wire(now.wall)),
            frozen: view.fleet().frozen.as_ref().map(convert::freeze_to_wire),
            projects: project::show_all(&view, now, &self.services.progress, view.projects_by_name()),
            agents: view.agents_by_name().map(|record| agent::show(&view, record)).collect(),
            running: count(view.out()),
            queued: count(view.waiting()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            term: view.fleet().term,
            store: Some(self.services.store_watch.show()),
        })
    }
}

#[tonic::async_trait]
impl v1::fleet_service_server::FleetService for Fleet {
    type WatchAuditEventsStream = Line<v1::WatchAuditEventsResponse>;
    type BackupStream = Line<v1::BackupResponse>;

    async fn backup(
        &self,
        request: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let by = user(&request)?;
        let place = backup::place(&self.backups)?;
        tracing::info!(target: "audit", %by, "backup of the store taken");
        if let Some(origin) = origin::current() {
            // Nothing changes by it, but all that the fleet knows leaves the house.
            self.services
                .driver
                .record(crate::audit::noted(&origin, "a backup of the store was begun".to_owned()));
        }
        Ok(Response::new(backup::stream(&self.services, place)))
    }

    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::FleetStatus>, Status> {
        Ok(self.status())
    }

    async fn freeze(&self, request: Request<v1::FreezeRequest>) -> Result<Response<v1::FleetStatus>, Status> {
        let by = user(&request)?;
        let reason = request.into_inner().reason;
        ask(&self.services, &by, Ask::Freeze { reason: reason.clone() }).await?;
        tracing::info!(target: "audit", %by, reason, "fleet frozen");
        Ok(self.status())
    }

    async fn thaw(&self, request: Request<v1::ThawRequest>) -> Result<Response<v1::FleetStatus>, Status> {
        let by = user(&request)?;
        ask(&self.services, &by, Ask::Thaw).await?;
        tracing::info!(target: "audit", %by, "fleet thawed");
        Ok(self.status())
    }

    async fn list_audit_events(
        &self,
        request: Request<v1::ListAuditEventsRequest>,
    ) -> Result<Response<v1::ListAuditEventsResponse>, Status> {
        audit::list(&self.services, request.into_inner()).await.map(Response::new)
    }

    async fn watch_audit_events(
        &self,
        request: Request<v1::WatchAuditEventsRequest>,
    ) -> Result<Response<Self::WatchAuditEventsStream>, Status> {
        audit::watch(&self.services, &self.watches, request.get_ref()).map(Response::new)
    }
}
