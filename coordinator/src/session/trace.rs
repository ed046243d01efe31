//! W3C trace context as text, so that one trace leads from `mirrorctl` over runs and assignments to rsync's exit.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tonic::metadata::MetadataMap;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header that carries it.
const HEADER: &str = "traceparent";
/// Length of its one version, in bytes: `00-<32 hex>-<16 hex>-<2 hex>`.
const TRACEPARENT_BYTES: usize = 55;

/// Makes the sender's span the parent of `span`; empty or malformed: there is none.
pub(crate) fn continue_from(span: &Span, traceparent: &str) {
    if !is_traceparent(traceparent) {
        return;
    }
    let carrier = HashMap::from([(HEADER.to_owned(), traceparent.to_owned())]);
    if let Err(error) = span.set_parent(TraceContextPropagator::new().extract(&carrier)) {
        tracing::trace!(%error, "traces are off");
    }
}

/// The trace context of the current span; where traces are off, what the caller sent; else empty.
pub(crate) fn current(metadata: &MetadataMap) -> String {
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&Span::current().context(), &mut carrier);
    let own = carrier.remove(HEADER).filter(|text| is_traceparent(text));
    let sent =
        || metadata.get(HEADER).and_then(|value| value.to_str().ok()).filter(|text| is_traceparent(text));
    own.or_else(|| sent().map(ToOwned::to_owned)).unwrap_or_default()
}

fn is_traceparent(text: &str) -> bool {
    let digits = text.bytes().all(|b| b == b'-' || b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    text.len() == TRACEPARENT_BYTES && digits && text.split('-').map(str::len).eq([2, 32, 16, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_the_caller_sent_is_passed_on_where_traces_are_off() {
        let mut metadata = MetadataMap::new();
        assert_eq!(current(&metadata), "");
        metadata.insert(HEADER, SENT.parse().unwrap());
        assert_eq!(current(&metadata), SENT);
        metadata.insert(HEADER, "00-xyz-1-1".parse().unwrap());
        assert_eq!(current(&metadata), "");
    }

    #[test]
    fn only_the_known_form_is_taken() {
        assert!(is_traceparent(SENT));
        for bad in ["", &SENT[1..], &SENT.to_uppercase(), &SENT.replace('-', "0"), &format!("{SENT}\n")] {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }
}
