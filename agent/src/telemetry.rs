//! The agent's own messages on standard error, and its traces. Traces are off unless an endpoint is configured, and
//! then cost nothing; a collector that is away harms nothing. One trace leads from what asked for a run to rsync's
//! exit: its context comes inside each assignment and goes back inside each report.

use std::collections::HashMap;
use std::io::IsTerminal as _;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Metadata, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::layer::SubscriberExt as _;

use crate::config::{Config, LogFormat};

/// The name of the agent in traces.
const SERVICE: &str = "agent";
/// The key of a trace's context, in assignments and reports: W3C Trace Context.
const TRACEPARENT: &str = "traceparent";
/// Libraries whose spans tell nothing about a sync, and would trace the export of traces.
const QUIET: [&str; 4] = ["h2", "hyper", "tonic", "tower"];

/// Why there are no messages.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The directives.
    #[error("log_level cannot be understood")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter.
    #[error("traces cannot be sent to the configured otlp_endpoint")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Set up before.
    #[error("telemetry is set up already")]
    Twice(#[from] tracing::subscriber::SetGlobalDefaultError),
}

/// Sends what traces are still here when it is shut down.
#[derive(Debug)]
#[must_use]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sets up messages and traces for the whole process. Needs a tokio runtime when traces are on.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn set_up(config: &Config) -> Result<Self, TelemetryError> {
        let provider = config.otlp_endpoint.as_deref().map(|to| provider(to, &config.name)).transpose()?;
        let traces = provider.as_ref().map(|provider| {
            let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(SERVICE));
            layer.with_filter(filter_fn(is_ours))
        });
        // Colour for people at a terminal that can only, and only if they want it: no-color.org.
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let colour = std::io::stderr().is_terminal()
            && set("NO_COLOR").is_none()
            && set("TERM").is_none_or(|term| term != "dumb");
        let messages = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
        let messages = match config.log_format {
            LogFormat::Text => messages.with_target(false).boxed(),
            LogFormat::Json => messages.json().boxed(),
        };
        let messages = messages.with_filter(config.log_level.parse::<Targets>()?);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(traces).with(messages))?;
        Ok(Self { provider })
    }

    /// Sends what is left, for a few seconds at most.
    pub fn shut_down(self) {
        if let Some(Err(error)) = self.provider.map(|provider| provider.shutdown()) {
            tracing::debug!(%error, "some traces could not be sent");
        }
    }
}

fn provider(endpoint: &str, agent: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let instance = opentelemetry::KeyValue::new("service.instance.id", agent.to_owned());
    let resource = Resource::builder().with_service_name(SERVICE).with_attribute(instance).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    let root = metadata.target().split("::").next().unwrap_or_default();
    *metadata.level() <= tracing::Level::INFO && !QUIET.contains(&root)
}

/// Makes a span a child of the one that a `traceparent` names. Without traces, or with a text that is none, nothing
/// happens.
pub fn set_parent(span: &Span, traceparent: &str) {
    if traceparent.is_empty() {
        return;
    }
    let carrier: HashMap<String, String> = [(TRACEPARENT.to_owned(), traceparent.to_owned())].into();
    let parent = TraceContextPropagator::new().extract(&carrier);
    // It fails where traces are off, which is as it should be.
    let _ = span.set_parent(parent);
}

/// A span's own `traceparent`; `None` where traces are off.
#[must_use]
pub fn traceparent(span: &Span) -> Option<String> {
    let context = span.context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut carrier: HashMap<String, String> = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_span_continues_its_parents_trace() {
        let provider = SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer(SERVICE));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("attempt");
            set_parent(&span, PARENT);
            let own = traceparent(&span).unwrap();
            assert_eq!(own[..36], PARENT[..36], "the same trace");
            assert_ne!(own, PARENT, "another span");
            let odd = tracing::info_span!("attempt");
            set_parent(&odd, "what is this");
            assert!(traceparent(&odd).is_some_and(|own| !own.contains("0af76519")));
        });
    }

    #[test]
    fn without_traces_there_is_none() {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let span = tracing::info_span!("attempt");
            set_parent(&span, PARENT);
            assert_eq!(traceparent(&span), None);
        });
    }
}
