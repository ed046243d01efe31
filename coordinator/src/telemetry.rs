//! Logs to stderr, and, where the configuration names a collector, traces to it.
//!
//! Off costs nothing; a collector that is dead harms nothing: spans wait in a bounded queue of a thread of its own
//! and are dropped when it is full. Knows no request: what is logged is said where it happens.

use std::{io::IsTerminal as _, time::Duration};

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider},
};
use tracing_subscriber::{
    Layer as _, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use crate::config::{Config, LogFormat};

/// What the traces are filed under.
const SERVICE: &str = "coordinator";
/// Libraries that talk about themselves; the configured filter comes after it and may ask for them.
const QUIET: &str = "tokio_cron_scheduler=warn";
/// Spans that may wait for the collector; more are dropped.
const SPANS_WAITING_MAX: usize = 2_048;
/// How long one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last spans may take at the end.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// The transport's own spans are never exported: the exporter would trace itself.
const NOT_TRACED: [&str; 4] = ["h2", "hyper", "tonic", "tower"];

/// Why there are no logs or traces.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter.
    #[error("`log.filter` is refused: {0}")]
    Filter(String),
    /// The exporter.
    #[error("could not set up the sending of traces")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Something else has taken the process's logs.
    #[error("logs are set up already")]
    Taken(#[from] tracing_subscriber::util::TryInitError),
}

/// Ends the sending of traces when dropped.
#[derive(Debug)]
pub struct Telemetry(Option<SdkTracerProvider>);

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.0
            && let Err(error) = provider.shutdown_with_timeout(SHUTDOWN_TIMEOUT)
        {
            tracing::debug!(%error, "the last spans were not sent");
        }
    }
}

/// Checks a filter text.
///
/// # Errors
/// What is wrong with it.
pub fn check_filter(text: &str) -> Result<(), String> {
    text.parse::<Targets>().map(drop).map_err(|error| error.to_string())
}

/// Sets up logs, and traces where wanted. Called once, within the runtime.
///
/// # Errors
/// [`TelemetryError`].
pub fn start(config: &Config) -> Result<Telemetry, TelemetryError> {
    let filter = format!("{QUIET},{}", config.log_filter)
        .parse::<Targets>()
        .map_err(|error| TelemetryError::Filter(error.to_string()))?;
    let lines = tracing_subscriber::fmt::layer().with_ansi(coloured()).with_writer(std::io::stderr);
    let lines = match config.log_format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let provider = config.otlp_endpoint.as_deref().map(provider).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        let quiet = NOT_TRACED.map(|target| (target, LevelFilter::OFF));
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SERVICE))
            .with_filter(Targets::new().with_default(LevelFilter::INFO).with_targets(quiet))
    });
    Registry::default().with(lines).with(spans).try_init()?;
    Ok(Telemetry(provider))
}

/// Colours are for terminals that can, and for people who want them.
fn coloured() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    std::io::stderr().is_terminal()
        && set("NO_COLOR").is_none()
        && set("TERM").is_none_or(|term| term != "dumb")
}

fn provider(endpoint: &str) -> Result<SdkTracerProvider, TelemetryError> {
    let exporter =
        SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_TIMEOUT).build()?;
    let bounds = BatchConfigBuilder::default().with_max_queue_size(SPANS_WAITING_MAX).build();
    let processor = BatchSpanProcessor::builder(exporter).with_batch_config(bounds).build();
    let resource = Resource::builder().with_service_name(SERVICE).build();
    Ok(SdkTracerProvider::builder().with_span_processor(processor).with_resource(resource).build())
}
