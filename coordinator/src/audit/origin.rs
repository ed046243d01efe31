//! Where a request comes from. The layer in front of all services makes one for each request and runs the service with
//! it, so that no service can forget to hand it on: the driver finds it by itself. What a service adds is what the
//! request is about.
//!
//! Knows no message of any service, and decides nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

tokio::task_local! {
    static ORIGIN: Arc<Origin>;
}

/// Who asks for what, from where.
#[derive(Debug)]
pub struct Origin {
    who: String,
    from: String,
    action: String,
    trace_id: String,
    told: Mutex<Told>,
}

/// What becomes known while the request is read.
#[derive(Debug, Default)]
struct Told {
    resource: Option<String>,
    why: Option<String>,
    request_id: String,
}

impl Origin {
    /// The origin of one request: who asks, the address, and the method as in `ProjectService.RunProject`.
    #[must_use]
    pub fn new(who: &str, from: &str, action: &str) -> Self {
        Self {
            who: who.to_owned(),
            from: from.to_owned(),
            action: action.to_owned(),
            trace_id: String::new(),
            told: Mutex::default(),
        }
    }

    /// With the id by which the request is found in the log, and the trace it is part of (empty: none).
    #[must_use]
    pub fn with_ids(self, request_id: String, trace_id: String) -> Self {
        self.told().request_id = request_id;
        Self { trace_id, ..self }
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asks.
    #[must_use]
    pub fn who(&self) -> &str {
        &self.who
    }

    /// The address.
    #[must_use]
    pub fn from(&self) -> &str {
        &self.from
    }

    /// The method.
    #[must_use]
    pub fn action(&self) -> &str {
        &self.action
    }

    /// The trace; empty: none.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// The caller's id of the request, else the coordinator's.
    #[must_use]
    pub fn request_id(&self) -> String {
        self.told().request_id.clone()
    }

    /// What it is about; `None`: nobody has said.
    #[must_use]
    pub fn resource(&self) -> Option<String> {
        self.told().resource.clone()
    }

    /// Why it is refused, where the caller is told less.
    #[must_use]
    pub fn why(&self) -> Option<String> {
        self.told().why.clone()
    }

    /// Says what it is about; the newest word counts.
    pub fn set_resource(&self, resource: String) {
        self.told().resource = Some(resource);
    }
}

/// Runs the service of a request; in it [`current`] is this origin.
pub async fn scope<F: Future>(origin: Arc<Origin>, service: F) -> F::Output {
    ORIGIN.scope(origin, service).await
}

/// The origin of the request that is served here; `None`: nobody's request.
#[must_use]
pub fn current() -> Option<Arc<Origin>> {
    ORIGIN.try_with(Arc::clone).ok()
}

/// Says what the request is about, as in `projects/debian`: a name that was read, not what was typed.
pub fn concerns(resource: impl Into<String>) {
    if let Some(origin) = current() {
        origin.set_resource(resource.into());
    }
}

/// Says why the request is refused, where the caller is told less.
pub fn because(why: impl Into<String>) {
    if let Some(origin) = current() {
        origin.told().why = Some(why.into());
    }
}

/// Says the caller's own id of the request.
pub fn request_id(id: &str) {
    if let Some(origin) = current() {
        id.clone_into(&mut origin.told().request_id);
    }
}
