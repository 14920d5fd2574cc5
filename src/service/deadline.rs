//! The time that one call may take.

use std::time::Duration;

use http::HeaderMap;

/// Timeout for a caller that sends no deadline. KubeVirt's own is 60 s for hook calls.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);

/// Bounds of the margin before the caller's deadline, a tenth of its time. Callers cut a call at
/// its deadline, with a status that explains nothing, so the shim replies earlier.
const MARGIN: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// Returns the time for a call with these headers, at most `limit`.
pub(super) fn of(headers: &HeaderMap, limit: Option<Duration>) -> Duration {
    let granted = headers.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
    let time = match granted {
        Some(granted) => granted.saturating_sub((granted / 10).clamp(MARGIN.0, MARGIN.1)),
        None => DEFAULT_TIMEOUT,
    };
    limit.map_or(time, |limit| limit.min(time))
}

/// Reads a `grpc-timeout`: up to eight digits and a unit.
fn parse(value: &str) -> Option<Duration> {
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(timeout: &str, limit: Option<Duration>) -> Duration {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", timeout.parse().unwrap());
        of(&headers, limit)
    }

    #[test]
    fn answers_a_margin_before_the_caller_gives_up() {
        assert_eq!(with("60S", None), Duration::from_secs(59));
        assert_eq!(with("1000m", None), Duration::from_millis(900));
        assert_eq!(with("100000u", None), Duration::from_millis(80));
        assert_eq!(with("10m", None), Duration::ZERO);
        assert_eq!(with("1M", Some(Duration::from_secs(5))), Duration::from_secs(5));
    }

    #[test]
    fn no_deadline_or_a_strange_one_is_the_default() {
        assert_eq!(of(&HeaderMap::new(), None), DEFAULT_TIMEOUT);
        for strange in ["", "S", "5", "5x", "-1S", "123456789S"] {
            assert_eq!(with(strange, None), DEFAULT_TIMEOUT, "{strange:?}");
        }
    }
}
