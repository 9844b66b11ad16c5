//! How many deliveries led to a request. An endpoint that publishes what it receives, be it through
//! other gateways, would do so for ever; the count that comes along ends that.

use http::{HeaderMap, StatusCode};

use tokio::time::Instant;

use crate::api::caller::Access;
use crate::api::gateway::Gateway;
use crate::api::problem::{Problem, Result};
use crate::domain::{HOPS_MAX, RateLimit};

const WEBHOOK_HOPS: &str = "webhook-hops";
/// How often a tenant's loops are written down: whoever sends the header could fill the log.
const LOOPS_TOLD: RateLimit = RateLimit { per_second: 0.1, burst: 20 };

/// The hops of what the request brings. Anything malformed is as if it were not there.
///
/// # Errors
/// 508 where it goes in a circle.
pub(super) fn of(gateway: &Gateway, access: &Access, headers: &HeaderMap) -> Result<u32> {
    let hops = count(headers);
    if hops < HOPS_MAX {
        return Ok(hops);
    }
    let tenant = access.slug.as_str();
    let owner = format!("loops of {}/{}", access.shard.number(), access.no.0);
    if gateway.pace.take(&owner, LOOPS_TOLD, 1, Instant::now()).is_ok() {
        tracing::warn!(tenant, hops, "a delivery came back as an event once too often: not taken");
    }
    let detail = format!(
        "{hops} deliveries, each published again, led to this request, and {HOPS_MAX} are a loop: \
         publish another type than the endpoint receives, or nothing"
    );
    Err(Problem::new(StatusCode::LOOP_DETECTED, "loop_detected", detail))
}

/// The greatest number among those that the request names: each who hands it on may add one.
fn count(headers: &HeaderMap) -> u32 {
    let texts = headers.get_all(WEBHOOK_HOPS).iter().filter_map(|it| it.to_str().ok());
    let numbers = texts.flat_map(|it| it.split(',')).map(str::trim).filter_map(|it| {
        let digits = !it.is_empty() && it.bytes().all(|it| it.is_ascii_digit());
        digits.then(|| it.parse().unwrap_or(u32::MAX))
    });
    numbers.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_number_counts() {
        for (values, expected) in [
            (&[][..], 0),
            (&["1"], 1),
            (&["1", "2"], 2),
            (&["2, 1"], 2),
            (&["99999999999"], u32::MAX),
            (&["-1"], 0),
            (&["+2"], 0),
            (&["soon"], 0),
            (&["soon, 3"], 3),
            (&[""], 0),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(WEBHOOK_HOPS, value.parse().unwrap());
            }
            assert_eq!(count(&headers), expected, "{values:?}");
        }
    }
}
