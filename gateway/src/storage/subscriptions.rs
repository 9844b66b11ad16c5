use std::{collections::BTreeMap, str::Split, sync::Arc};

use crate::domain::{Endpoint, EventType};

/// A tenant's enabled endpoints by the patterns that they ask for.
///
/// It finds candidates: whoever wants an event is among them, and [`Endpoint::wants`] decides.
/// What that costs depends on the patterns that fit, not on how many endpoints there are.
#[derive(Debug, Default)]
pub(super) struct Subscriptions {
    /// Those that name no event types.
    unnamed: Endpoints,
    named: Node,
}

/// In the order of their numbers.
#[derive(Debug, Default)]
struct Endpoints(Vec<Arc<Endpoint>>);

/// Candidates as they are met, the same one as often as its patterns fit.
struct Found<'a> {
    endpoints: Vec<&'a Arc<Endpoint>>,
    most: usize,
}

impl<'a> Found<'a> {
    /// `None`: there are too many.
    fn add(&mut self, more: &'a Endpoints) -> Option<()> {
        let room = self.most.checked_sub(self.endpoints.len())?;
        (more.0.len() <= room).then(|| self.endpoints.extend(&more.0))
    }
}

/// Where patterns lead, segment by segment.
#[derive(Debug, Default)]
struct Node {
    /// Whose patterns end here.
    here: Endpoints,
    /// Whose patterns take whatever follows: `**`.
    below: Endpoints,
    segments: BTreeMap<Box<str>, Node>,
}

impl Subscriptions {
    /// Takes an endpoint in, if it is enabled.
    pub(super) fn insert(&mut self, endpoint: &Arc<Endpoint>) {
        if endpoint.enabled {
            self.change(endpoint, &|it| it.insert(endpoint));
        }
    }

    /// Lets go of an endpoint as it was taken in.
    pub(super) fn remove(&mut self, endpoint: &Endpoint) {
        self.change(endpoint, &|it| it.remove(endpoint));
    }

    /// Those that may want events of this type, each once.
    pub(super) fn candidates(&self, event_type: &EventType) -> Vec<&Arc<Endpoint>> {
        self.few_candidates(event_type, usize::MAX).unwrap_or_default()
    }

    /// The same, unless there are more than `most`, which costs no more than `most` would.
    pub(super) fn few_candidates(
        &self,
        event_type: &EventType,
        most: usize,
    ) -> Option<Vec<&Arc<Endpoint>>> {
        let mut found = Found { endpoints: Vec::new(), most };
        found.add(&self.unnamed)?;
        self.named.gather(event_type.as_str().split('.'), &mut found)?;
        let mut found = found.endpoints;
        found.sort_unstable_by_key(|it| it.no);
        found.dedup_by_key(|it| it.no);
        Some(found)
    }

    fn change(&mut self, endpoint: &Endpoint, change: &dyn Fn(&mut Endpoints)) {
        if endpoint.event_types.is_empty() {
            change(&mut self.unnamed);
        }
        for pattern in &endpoint.event_types {
            self.named.change(pattern.as_str().split('.'), change);
        }
    }
}

impl Node {
    fn change(&mut self, mut rest: Split<'_, char>, change: &dyn Fn(&mut Endpoints)) {
        match rest.next() {
            None => change(&mut self.here),
            Some("**") => change(&mut self.below),
            Some(segment) => {
                let node = self.segments.entry(segment.into()).or_default();
                node.change(rest, change);
                if node.is_empty() {
                    self.segments.remove(segment);
                }
            }
        }
    }

    fn gather<'a>(&'a self, mut rest: Split<'_, char>, found: &mut Found<'a>) -> Option<()> {
        found.add(&self.below)?;
        let Some(segment) = rest.next() else { return found.add(&self.here) };
        for name in [segment, "*"] {
            if let Some(node) = self.segments.get(name) {
                node.gather(rest.clone(), found)?;
            }
        }
        Some(())
    }

    fn is_empty(&self) -> bool {
        self.here.0.is_empty() && self.below.0.is_empty() && self.segments.is_empty()
    }
}

impl Endpoints {
    fn insert(&mut self, endpoint: &Arc<Endpoint>) {
        match self.place(endpoint) {
            Ok(place) => self.0[place] = endpoint.clone(),
            Err(place) => self.0.insert(place, endpoint.clone()),
        }
    }

    fn remove(&mut self, endpoint: &Endpoint) {
        if let Ok(place) = self.place(endpoint) {
            self.0.remove(place);
        }
    }

    fn place(&self, endpoint: &Endpoint) -> Result<usize, usize> {
        self.0.binary_search_by_key(&endpoint.no, |it| it.no)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::{EndpointNo, Pattern, event_for_tests};
    use crate::storage::conformance::endpoint;

    /// Texts of a few segments, so that patterns and types often meet.
    fn texts(segments: &'static str) -> impl Strategy<Value = String> {
        let segment = proptest::sample::select(segments.split(' ').collect::<Vec<_>>());
        proptest::collection::vec(segment, 1..4).prop_map(|it| it.join("."))
    }

    fn subscriber(no: usize, patterns: &[String], enabled: bool) -> Arc<Endpoint> {
        let mut endpoint = endpoint(EndpointNo(no as u32));
        endpoint.event_types = patterns.iter().filter_map(|it| Pattern::parse(it)).collect();
        endpoint.enabled = enabled;
        Arc::new(endpoint)
    }

    proptest! {
        #[test]
        fn whoever_wants_an_event_is_found(
            patterns in proptest::collection::vec(
                (proptest::collection::vec(texts("a b hookgate * **"), 0..3), any::<bool>()), 0..12),
            event_type in texts("a b hookgate"),
            gone in any::<u16>(),
        ) {
            let all: Vec<_> = patterns.iter().enumerate()
                .map(|(no, (patterns, enabled))| subscriber(no, patterns, *enabled)).collect();
            let mut subscriptions = Subscriptions::default();
            all.iter().for_each(|it| subscriptions.insert(it));
            let is_gone = |it: &Arc<Endpoint>| gone >> it.no.0 & 1 == 1;
            all.iter().filter(|it| is_gone(it)).for_each(|it| subscriptions.remove(it));
            let event = event_for_tests(&event_type, "{}");
            let found = subscriptions.candidates(&event.event_type);
            let found: Vec<_> =
                found.into_iter().filter(|it| it.wants(&event)).map(|it| it.no).collect();
            let asked: Vec<_> = all.iter()
                .filter(|it| !is_gone(it) && it.wants(&event)).map(|it| it.no).collect();
            prop_assert_eq!(found, asked);
        }
    }

    #[test]
    fn who_asks_for_something_else_is_not_asked() {
        let mut subscriptions = Subscriptions::default();
        for no in 0..100 {
            subscriptions.insert(&subscriber(no, &[format!("order.{no}")], true));
        }
        subscriptions.insert(&subscriber(100, &["order.*".to_owned(), "**".to_owned()], true));
        let of = |it: &str| EventType::parse(it).unwrap();
        let found = subscriptions.candidates(&of("order.7"));
        assert_eq!(found.iter().map(|it| it.no.0).collect::<Vec<_>>(), [7, 100]);
        // One has two patterns that fit, which are looked at before it is known to be the same.
        let few = |most| subscriptions.few_candidates(&of("order.7"), most).map(|it| it.len());
        assert_eq!((few(2), few(3)), (None, Some(2)));
        assert_eq!(subscriptions.candidates(&of("order.7.paid")).len(), 1);
        for no in 0..100 {
            subscriptions.remove(&subscriber(no, &[format!("order.{no}")], true));
        }
        assert_eq!(subscriptions.named.segments["order"].segments.len(), 1, "the star alone");
    }
}
