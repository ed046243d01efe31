//! Spans of time as people type them: `45s`, `90m`, `6h`, `3d`, `2w`, and joined as `1d12h`.

/// Longest span, in seconds: 366 days.
pub const SPAN_SECONDS_MAX: u64 = 366 * 86_400;
/// Longest text of a span, in bytes.
const SPAN_BYTES_MAX: usize = 32;
/// The units from the largest to the smallest, each at most once and in this order.
const UNITS: [(char, u64); 5] = [('w', 604_800), ('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

/// A text that is no span.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanFault {
    /// Not in the grammar.
    #[error("{0:?}: a span is a number with a unit, as in 45s, 90m, 6h, 3d, 2w or 1d12h")]
    NotASpan(String),
    /// Zero, or over [`SPAN_SECONDS_MAX`].
    #[error("{0:?}: a span must be 1s to 366d")]
    OutOfRange(String),
}

/// Reads a span; the answer is in seconds, 1 to [`SPAN_SECONDS_MAX`].
///
/// # Errors
/// A text outside of the grammar or a span outside of the bounds.
pub fn parse_span(text: &str) -> Result<u64, SpanFault> {
    let trimmed = text.trim();
    let not_a_span = || SpanFault::NotASpan(text.chars().take(SPAN_BYTES_MAX).collect());
    if trimmed.is_empty() || trimmed.len() > SPAN_BYTES_MAX {
        return Err(not_a_span());
    }
    let mut total: u64 = 0;
    let mut rest = trimmed;
    let mut units = UNITS.iter();
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = rest.split_at(digits);
        let mut letters = after.chars();
        let unit = letters.next().map(|unit| unit.to_ascii_lowercase()).ok_or_else(not_a_span)?;
        let (_, seconds) = units.find(|(known, _)| *known == unit).ok_or_else(not_a_span)?;
        if number.is_empty() {
            return Err(not_a_span());
        }
        // Numbers too long for a u64 are far out of range, so a saturated sum gives the right answer.
        total = total.saturating_add(number.parse().unwrap_or(u64::MAX).saturating_mul(*seconds));
        rest = letters.as_str();
    }
    if (1..=SPAN_SECONDS_MAX).contains(&total) {
        Ok(total)
    } else {
        Err(SpanFault::OutOfRange(trimmed.to_owned()))
    }
}
