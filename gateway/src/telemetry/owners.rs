//! Metrics by tenant and endpoint, for operators that ask for it: only those they name have a
//! value of their own, so that the number of series is the operator's choice.

use std::{collections::BTreeSet, sync::OnceLock};

use metrics::{Label, SharedString};

/// Names of either kind at most: each multiplies the series of the metrics that are told apart.
const NAMES_MAX: usize = 100;
/// Everybody who is not named.
const OTHER: &str = "__other__";

/// Whom metrics are told apart by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    tenants: BTreeSet<String>,
    /// `tenant/endpoint`.
    endpoints: BTreeSet<String>,
}

/// There are too many of them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("at most {NAMES_MAX} names, not {0}")]
pub struct OwnersError(usize);

static OWNERS: OnceLock<Owners> = OnceLock::new();

impl Owners {
    /// These tenants, and these endpoints, each as `tenant/endpoint`.
    ///
    /// # Errors
    /// When there are more of a kind than a hundred.
    pub fn new(tenants: Vec<String>, endpoints: Vec<String>) -> Result<Self, OwnersError> {
        let most = tenants.len().max(endpoints.len());
        if most > NAMES_MAX {
            return Err(OwnersError(most));
        }
        let (tenants, endpoints) = (tenants.into_iter().collect(), endpoints.into_iter().collect());
        Ok(Self { tenants, endpoints })
    }

    /// The labels that tell a tenant and an endpoint apart; none where nobody was named.
    fn labels(&self, tenant: &str, endpoint: Option<&str>) -> impl Iterator<Item = Label> {
        let known = |names: &BTreeSet<String>, name: &str| {
            let name = if names.contains(name) { name } else { OTHER };
            SharedString::from(name.to_owned())
        };
        let by_tenant =
            (!self.tenants.is_empty()).then(|| Label::new("tenant", known(&self.tenants, tenant)));
        let by_endpoint = endpoint.filter(|_| !self.endpoints.is_empty()).map(|endpoint| {
            let name = format!("{tenant}/{endpoint}");
            Label::new("endpoint", known(&self.endpoints, &name))
        });
        by_tenant.into_iter().chain(by_endpoint)
    }
}

/// From now on, and once for the process.
pub(super) fn set(owners: Owners) {
    // A second gateway in the process (as in tests) shares the first one's series.
    let _ = OWNERS.set(owners);
}

/// Whether the operator asked for it.
pub(super) fn asked_for() -> bool {
    OWNERS.get().is_some_and(|it| *it != Owners::default())
}

/// Those who are named, and everybody else.
pub(super) fn tenants() -> impl Iterator<Item = &'static str> {
    let named = OWNERS.get().into_iter().flat_map(|it| &it.tenants).map(String::as_str);
    named.chain([OTHER])
}

pub(super) fn name(labels: &mut Vec<Label>, tenant: &str, endpoint: Option<&str>) {
    if let Some(owners) = OWNERS.get() {
        labels.extend(owners.labels(tenant, endpoint));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(owners: &Owners, tenant: &str, endpoint: Option<&str>) -> Vec<(String, String)> {
        let labels = owners.labels(tenant, endpoint);
        labels.map(|it| (it.key().to_owned(), it.value().to_owned())).collect()
    }

    #[test]
    fn only_who_is_named_has_a_series() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(told(&Owners::default(), "acme", Some("ep_1")), []);
        let owners = Owners::new(vec!["acme".into()], vec!["acme/ep_1".into()]).unwrap();
        let named = [pair("tenant", "acme"), pair("endpoint", "acme/ep_1")];
        assert_eq!(told(&owners, "acme", Some("ep_1")), named);
        let other = [pair("tenant", OTHER), pair("endpoint", OTHER)];
        assert_eq!(told(&owners, "globex", Some("ep_1")), other);
        assert_eq!(told(&owners, "acme", None), [pair("tenant", "acme")]);
    }

    #[test]
    fn there_is_a_hard_cap() {
        let names = |count: usize| (0..count).map(|it| format!("t{it}")).collect::<Vec<_>>();
        assert!(Owners::new(names(100), vec![]).is_ok());
        assert_eq!(Owners::new(vec![], names(101)), Err(OwnersError(101)));
    }
}
