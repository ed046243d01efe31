//! One span for one command, so that a trace leads from what was typed to rsync's exit. Off unless
//! `MIRRORCTL_OTLP_ENDPOINT` is set; then nothing of it exists. A collector that is away costs the command at most
//! two seconds and never its result.

use std::time::Duration;

use opentelemetry::trace::{Span as _, SpanContext, Status, Tracer as _, TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracerProvider, Span};

use crate::exit::Exit;

/// The variable that names the collector, as in `http://127.0.0.1:4317`.
pub const ENDPOINT_VARIABLE: &str = "MIRRORCTL_OTLP_ENDPOINT";
/// How long the end of a command may wait for the collector, in seconds.
const FLUSH_SECONDS_MAX: u64 = 2;

/// The span of this command, if there is a collector.
#[derive(Debug, Default)]
pub struct Telemetry(Option<Active>);

#[derive(Debug)]
struct Active {
    provider: SdkTracerProvider,
    span: Span,
}

impl Telemetry {
    /// Begins the span `mirrorctl <command>`. Must be called inside the runtime; a collector's address that cannot be
    /// used is reported on standard error once and changes nothing else.
    #[must_use]
    pub fn start(endpoint: Option<&str>, command: &str) -> Self {
        let Some(endpoint) = endpoint.filter(|endpoint| !endpoint.is_empty()) else { return Self(None) };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint)
            .with_timeout(Duration::from_secs(FLUSH_SECONDS_MAX))
            .build();
        let exporter = match exporter {
            Ok(exporter) => exporter,
            Err(error) => {
                crate::app::note(&format!("no trace is sent: {ENDPOINT_VARIABLE}: {error}"));
                return Self(None);
            }
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(Resource::builder().with_service_name("mirrorctl").build())
            .build();
        let span = provider.tracer("mirrorctl").start(format!("mirrorctl {command}"));
        Self(Some(Active { provider, span }))
    }

    /// The W3C `traceparent` that every request carries.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        self.0.as_ref().map(|active| traceparent(active.span.span_context()))
    }

    /// Ends the span with the command's result and sends it.
    pub async fn finish(self, exit: Exit) {
        let Some(Active { provider, mut span }) = self.0 else { return };
        if exit != Exit::Done {
            span.set_status(Status::error(format!("exit code {}", exit.code())));
        }
        span.end();
        // Blocks on the exporter, which needs this thread's runtime to make progress.
        let flush = tokio::task::spawn_blocking(move || {
            provider.shutdown_with_timeout(Duration::from_secs(FLUSH_SECONDS_MAX))
        });
        // A dead collector is nobody's problem but the collector's.
        let _ = flush.await;
    }
}

/// W3C Trace Context, version 00.
fn traceparent(context: &SpanContext) -> String {
    format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8())
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry::trace::{SpanId, TraceFlags, TraceId, TraceState};

    #[test]
    fn traceparents_are_w3c() {
        let context = SpanContext::new(
            TraceId::from(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c),
            SpanId::from(0xb7ad_6b71_6920_3331),
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        );
        assert_eq!(traceparent(&context), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    }

    #[test]
    fn off_means_nothing() {
        assert!(Telemetry::start(None, "status").traceparent().is_none());
        assert!(Telemetry::start(Some(""), "status").traceparent().is_none());
    }

    #[tokio::test]
    async fn a_dead_collector_harms_nothing() {
        let telemetry = Telemetry::start(Some("http://127.0.0.1:9"), "status");
        assert!(telemetry.traceparent().is_some_and(|text| text.starts_with("00-") && text.ends_with("-01")));
        let ended = tokio::time::timeout(Duration::from_secs(10), telemetry.finish(Exit::Done)).await;
        assert!(ended.is_ok());
    }
}
