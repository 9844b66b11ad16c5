//! What to do where an event did not arrive.

/// What to do about a reason that `explain` tells; `None` where nothing is to be done, or time
/// does it.
pub(super) fn remedy(code: &str) -> Option<&'static str> {
    Some(match code {
        "type_mismatch" => {
            "if it should get these: add the type to the endpoint's `event_types`; a replay sends \
             it what it missed"
        }
        "filter_false" => {
            "if it should get these: change the endpoint's `filter`; a replay sends it what it \
             missed"
        }
        "filter_error" => {
            "ask in the filter whether a member is there first: `has(data.x) && data.x > 5`; a \
             replay sends it what it missed"
        }
        "disabled" => {
            "enable the endpoint: PATCH it with {\"enabled\": true}; a replay sends it what it \
             missed"
        }
        "created_later" | "changed_later" => "a replay for the endpoint sends it",
        "filtered" => {
            "a plugin of the endpoint decides that: look at its configuration and its log, or run \
             it on the event; an attempt of the delivery names its version"
        }
        "waiting_for_retry" => {
            "mend what `last_error` says; a manual retry of the delivery does not wait"
        }
        "held_disabled" => {
            "enable the endpoint once it takes events: PATCH it with {\"enabled\": true}; what is \
             held goes then"
        }
        "secret_unavailable" => "rotate the endpoint's signing secret",
        "behind" => "look at the delivery that `behind` names: mend, retry or cancel that one",
        "breaker_open" => {
            "mend the endpoint: its attempts tell how it fails; a test or a manual retry goes at \
             once, and closes the breaker when it is taken"
        }
        "paused" => "wait, or retry the delivery by hand: that goes at once",
        "slowed" => "nothing, if the endpoint means it: its pace climbs by itself",
        "rate_limited" => "raise the endpoint's `rate_limit`, if it can take more",
        "plugin_resting" => {
            "mend the plugin: its log tells how it fails; a new version is run at once. Or choose \
             another `on_error` for the endpoint"
        }
        _ => return of_ended(code),
    })
}

/// The same for what was given up or withdrawn.
fn of_ended(code: &str) -> Option<&'static str> {
    Some(match code {
        "retries_exhausted" => {
            "mend the endpoint: the delivery's attempts tell how it failed; then redrive the dead \
             letter"
        }
        "gone" | "endpoint_disabled" => {
            "enable the endpoint once it takes events: PATCH it with {\"enabled\": true}; then \
             redrive the dead letter"
        }
        "plugin_error" => {
            "mend the plugin (its log tells how it failed), or choose another `on_error` for the \
             endpoint; then redrive the dead letter"
        }
        "refused" => {
            "the endpoint's plugin takes that answer for final: mend the endpoint or the plugin, \
             then redrive the dead letter"
        }
        "loop" => {
            "let the endpoint publish only what it does not receive itself, for example as other \
             event types"
        }
        "expired" | "internal_error" => "redrive the dead letter, if it is still of use",
        "cancelled" => "a manual retry of the delivery sends it after all",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeadReason;

    #[test]
    fn whatever_died_has_a_remedy() {
        for (_, name) in DeadReason::NAMES {
            assert!(remedy(name).is_some(), "{name}");
        }
        for code in ["delivered", "queued", "not_fanned_out", "test", "endpoint_deleted"] {
            assert_eq!(remedy(code), None, "{code}");
        }
    }
}
