//! The keys of the view. Big-endian throughout, so that byte order is number order.

use bytes::Bytes;

use crate::domain::{DeliveryKey, EndpointNo, Seq, TenantNo, Timestamp};
use crate::storage::{Error, Result};

/// A shard's number: the first two bytes of every key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShardNo(pub(super) u16);

/// Builds keys of one shard.
impl ShardNo {
    fn key(self, parts: &[&[u8]]) -> Bytes {
        let mut key = Vec::with_capacity(2 + parts.iter().map(|it| it.len()).sum::<usize>());
        key.extend_from_slice(&self.0.to_be_bytes());
        for part in parts {
            key.extend_from_slice(part);
        }
        key.into()
    }

    pub(super) fn seq(self, seq: Seq) -> Bytes {
        self.key(&[&seq.0.to_be_bytes()])
    }

    pub(super) fn tenant_seq(self, tenant: TenantNo, seq: Seq) -> Bytes {
        self.key(&[&tenant.0.to_be_bytes(), &seq.0.to_be_bytes()])
    }

    pub(super) fn endpoint_seq(self, endpoint: EndpointNo, seq: Seq) -> Bytes {
        self.key(&[&endpoint.0.to_be_bytes(), &seq.0.to_be_bytes()])
    }

    pub(super) fn endpoint(self, endpoint: EndpointNo) -> Bytes {
        self.key(&[&endpoint.0.to_be_bytes()])
    }

    pub(super) fn id(self, tenant: TenantNo, id: &str) -> Bytes {
        self.key(&[&tenant.0.to_be_bytes(), id.as_bytes()])
    }

    pub(super) fn history(self, key: DeliveryKey, entry: u32) -> Bytes {
        let (seq, endpoint) = (key.seq.0.to_be_bytes(), key.endpoint.0.to_be_bytes());
        self.key(&[&seq, &endpoint, &entry.to_be_bytes()])
    }

    pub(super) fn retry(self, share: u8, due: Timestamp, key: DeliveryKey) -> Bytes {
        let (seq, endpoint) = (key.seq.0.to_be_bytes(), key.endpoint.0.to_be_bytes());
        self.key(&[&endpoint, &[share], &due.0.to_be_bytes(), &seq])
    }

    pub(super) fn dead(self, tenant: TenantNo, died_at: Timestamp, key: DeliveryKey) -> Bytes {
        let (seq, endpoint) = (key.seq.0.to_be_bytes(), key.endpoint.0.to_be_bytes());
        self.key(&[&tenant.0.to_be_bytes(), &died_at.0.to_be_bytes(), &seq, &endpoint])
    }

    /// The place of a replayed delivery among those of its event.
    pub(super) fn backfill(self, key: DeliveryKey) -> Bytes {
        let (seq, endpoint) = (key.seq.0.to_be_bytes(), key.endpoint.0.to_be_bytes());
        self.key(&[&u32::MAX.to_be_bytes(), &seq, &endpoint])
    }

    pub(super) fn audit(self, tenant: TenantNo, at: Timestamp, no: u64) -> Bytes {
        self.key(&[&tenant.0.to_be_bytes(), &at.0.to_be_bytes(), &no.to_be_bytes()])
    }

    pub(super) fn catalog(self, kind: u8, tenant: TenantNo, name: &str) -> Bytes {
        self.key(&[&[kind], &tenant.0.to_be_bytes(), name.as_bytes()])
    }

    pub(super) fn component(self, tenant: TenantNo, plugin: &str, version: u32) -> Bytes {
        self.key(&[&tenant.0.to_be_bytes(), plugin.as_bytes(), &[0], &version.to_be_bytes()])
    }

    pub(super) fn all(self) -> Bytes {
        self.key(&[])
    }

    /// The first key behind the shard's last.
    pub(super) fn end(self) -> Bytes {
        Bytes::copy_from_slice(&(u32::from(self.0) + 1).to_be_bytes()[2..])
    }
}

/// The number in `key` at `offset` behind the shard.
pub(super) fn u64_at(key: &[u8], offset: usize) -> Result<u64> {
    let bytes = key.get(2 + offset..2 + offset + 8).ok_or_else(|| Error::corrupt("short key"))?;
    Ok(u64::from_be_bytes(bytes.try_into().expect("eight bytes")))
}

/// The waiting delivery named in a key of [`ShardNo::retry`]: its share's code, due time and name.
pub(super) fn retry_at(key: &[u8]) -> Result<(u8, Timestamp, DeliveryKey)> {
    let endpoint = EndpointNo(u32_at(key, 0)?);
    let share = *key.get(6).ok_or_else(|| Error::corrupt("short key"))?;
    let seq = Seq(u64_at(key, 13)?);
    Ok((share, Timestamp(u64_at(key, 5)?), DeliveryKey { seq, endpoint }))
}

/// The number in `key` at `offset` behind the shard.
pub(super) fn u32_at(key: &[u8], offset: usize) -> Result<u32> {
    let bytes = key.get(2 + offset..2 + offset + 4).ok_or_else(|| Error::corrupt("short key"))?;
    Ok(u32::from_be_bytes(bytes.try_into().expect("four bytes")))
}

/// The delivery named in `key` at `offset` behind the shard.
pub(super) fn delivery_at(key: &[u8], offset: usize) -> Result<DeliveryKey> {
    let (seq, endpoint) = (u64_at(key, offset)?, u32_at(key, offset + 8)?);
    Ok(DeliveryKey { seq: Seq(seq), endpoint: EndpointNo(endpoint) })
}
