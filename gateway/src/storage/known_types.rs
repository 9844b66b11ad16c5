use crate::domain::{EventType, KnownType, Slug};
use crate::storage::Refused;
use crate::storage::audit::{Change, Noun};
use crate::storage::record::Record;
use crate::storage::shard::Shard;

/// Event types that a tenant may describe.
const KNOWN_TYPES_MAX: u32 = 1000;

impl Shard {
    /// Describes an event type by `change`, which gets the description as it is; whether it is
    /// new.
    ///
    /// # Errors
    /// `NotFound` when the tenant does not exist, `Limit` when it has described as many as it
    /// may, what `change` says, or when storage fails.
    pub async fn put_event_type(
        &self,
        tenant: &Slug,
        name: &EventType,
        change: impl FnOnce(Option<&KnownType>) -> Result<KnownType, Refused> + Send,
    ) -> Result<(KnownType, bool), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(tenant)?;
        let (known, count) = {
            let catalog = self.catalog();
            let types = catalog.tenant(tenant).map(|it| &it.types);
            (types.and_then(|it| it.get(name).cloned()), types.map_or(0, |it| it.len()))
        };
        if known.is_none() && count >= KNOWN_TYPES_MAX as usize {
            return Err(Refused::Limit(KNOWN_TYPES_MAX));
        }
        let now = self.clock.now();
        let mut described = change(known.as_deref())?;
        described.created_at = known.as_ref().map_or(now, |it| it.created_at);
        described.updated_at = now;
        let change = Change {
            tenant: Some((tenant, no)),
            subject: format!("event type {name}"),
            before: known.as_deref().map(Noun::EventType),
            after: Some(Noun::EventType(&described)),
        };
        let record = Record::EventTypePut { tenant_no: no.0, known: (&described).into() };
        self.commit_change(&change, vec![record]).await?;
        Ok((described, known.is_none()))
    }

    /// Forgets the description of an event type, if `agrees` does; its events stay.
    ///
    /// # Errors
    /// `NotFound`, what `agrees` says, or when storage fails.
    pub async fn delete_event_type(
        &self,
        tenant: &Slug,
        name: &EventType,
        agrees: impl FnOnce(&KnownType) -> Result<(), Refused> + Send,
    ) -> Result<(), Refused> {
        let _one_at_a_time = self.configuring.lock().await;
        let no = self.tenant_no(tenant)?;
        let known = self.catalog().tenant(tenant).and_then(|it| it.types.get(name).cloned());
        let known = known.ok_or(Refused::NotFound)?;
        agrees(&known)?;
        let change = Change {
            tenant: Some((tenant, no)),
            subject: format!("event type {name}"),
            before: Some(Noun::EventType(&known)),
            after: None,
        };
        let record = Record::EventTypeDeleted { tenant_no: no.0, name: name.to_string() };
        Ok(self.commit_change(&change, vec![record]).await?)
    }
}
