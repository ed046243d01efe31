//! A push that came over HTTPS: the same gate, table, records and words as for one that came by gRPC. Knows no HTTP
//! beyond headers.

use std::{net::SocketAddr, sync::Arc};

use fleet::refusal::{Refusal, RefusalCode};
use http::{HeaderMap, HeaderValue};
use mirror_proto::v1;
use tonic::{Request, Status};
use tracing::Instrument as _;

use super::{
    gate::{Admitted, Caller, NOBODY, short},
    layer, project,
};
use crate::{
    Services,
    audit::origin::{self, Origin},
    connections::PeerInfo,
};

/// What it is by gRPC.
const METHOD: &str = "/mirror.v1.ProjectService/PushProject";

/// Who pushes over HTTPS, let through by the gate.
#[derive(Debug)]
pub(crate) struct Pusher {
    caller: Caller,
    admitted: Admitted,
    origin: Arc<Origin>,
    span: tracing::Span,
}

/// Asks the gate, before anything but the head of the request is read. `authorization` is the header of the caller's
/// token; `headers` are the others.
///
/// # Errors
/// What the gate says; it is recorded.
#[allow(clippy::result_large_err, reason = "a Status is what tonic wants")]
pub(crate) fn admit(
    services: &Services,
    from: SocketAddr,
    authorization: Option<HeaderValue>,
    headers: &HeaderMap,
) -> Result<Pusher, Status> {
    let gate = Arc::new(super::gate(services));
    let info = PeerInfo::new(from, None, 0);
    let admitted = match &authorization {
        Some(shown) => gate.admit(METHOD, Some(&info), Some(shown.as_bytes())),
        None => Ok(None),
    };
    let caller = admitted.and_then(|caller| caller.ok_or_else(no_token));
    let (request_id, from) = (gate.request_id(headers), info.from());
    let caller = caller.map_err(|refusal| {
        let origin = Origin::new(NOBODY, &from, &short(METHOD)).with_ids(request_id.clone(), String::new());
        layer::refuse(&services.driver, &origin, &refusal)
    })?;
    let who = caller.to_string();
    let span = tracing::info_span!(
        "push over HTTPS",
        otel.name = short(METHOD),
        method = METHOD,
        who,
        from,
        request_id
    );
    let trace_id = layer::continue_trace(&span, headers);
    let origin = Arc::new(Origin::new(&who, &from, &short(METHOD)).with_ids(request_id, trace_id));
    let admitted = Admitted { gate, method: METHOD, info: Some(info), authorization };
    Ok(Pusher { caller, admitted, origin, span })
}

impl Pusher {
    /// Pushes the project with this name.
    ///
    /// # Errors
    /// As `PushProject`; it is recorded.
    pub(crate) async fn push(
        self,
        services: &Services,
        project: &str,
    ) -> Result<v1::PushProjectResponse, Status> {
        let Self { caller, admitted, origin, span } = self;
        let name = format!("projects/{project}");
        let mut request = Request::new(v1::PushProjectRequest { name, request_id: String::new() });
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(admitted);
        async {
            let pushed = origin::scope(Arc::clone(&origin), project::push(services, request)).await;
            layer::record(&services.driver, &origin, METHOD, pushed.as_ref().err().cloned());
            pushed
        }
        .instrument(span)
        .await
    }
}

fn no_token() -> Refusal {
    let text = "a push wants the token of its project, as `Authorization: Bearer mpt_...` or as `X-Gitlab-Token`; an \
                admin makes one: mirrorctl push-token create PROJECT";
    Refusal::new(RefusalCode::Unauthenticated, "NO_IDENTITY", text)
}
