use crate::domain::{Claim, Ordering, Seq};
use crate::storage::waiting::Due;

/// The ordering key of all events of a strictly ordered endpoint.
pub(super) const STRICT: OrderingKey = OrderingKey(1);

/// A digest of an event's ordering key at an endpoint: deliveries with the same one go one at a
/// time. Zero is unordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct OrderingKey(pub(super) u64);

impl OrderingKey {
    pub(super) const NONE: Self = Self(0);

    pub(super) fn of(ordering: Ordering, key: Option<&str>) -> Self {
        match (ordering, key) {
            (Ordering::None, _) | (Ordering::Key, None) => Self::NONE,
            (Ordering::Strict, _) => STRICT,
            (Ordering::Key, Some(key)) => {
                // Two keys with one digest only wait for each other without need.
                let low = crc32fast::hash(key.as_bytes());
                let high = crc32fast::hash(format!("{key}{low}").as_bytes());
                Self((u64::from(high) << 32 | u64::from(low)).max(2))
            }
        }
    }

    pub(super) fn is_ordered(self) -> bool {
        self != Self::NONE
    }
}

/// How much a lane may give out now. What somebody asked for goes beside it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Deliveries in all.
    pub any: usize,
    /// Of these, retries.
    pub retries: usize,
    /// Of these, replays and redrives.
    pub bulk: usize,
}

impl Allowance {
    /// So many, of whatever share.
    pub const fn of(any: usize) -> Self {
        Self { any, retries: any, bulk: any }
    }

    pub(super) fn spend(&mut self, share: Claim) {
        let of_share = match share {
            Claim::Asked => return,
            Claim::First => None,
            Claim::Retry => Some(&mut self.retries),
            Claim::Bulk => Some(&mut self.bulk),
        };
        self.any = self.any.saturating_sub(1);
        if let Some(left) = of_share {
            *left = left.saturating_sub(1);
        }
    }
}

/// A delivery that has no attempt yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fresh {
    pub(super) seq: Seq,
    pub(super) key: OrderingKey,
}

/// What a lane gives out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Taken {
    Fresh(Fresh, Claim),
    Due(Due),
}

impl Taken {
    pub(super) fn seq(&self) -> Seq {
        match self {
            Self::Fresh(it, _) => it.seq,
            Self::Due(it) => it.seq,
        }
    }

    pub(super) fn key(&self) -> OrderingKey {
        match self {
            Self::Fresh(it, _) => it.key,
            Self::Due(it) => OrderingKey(it.row.ordering_key),
        }
    }

    pub(super) fn share(&self) -> Claim {
        match self {
            Self::Fresh(_, share) => *share,
            Self::Due(it) => it.row.share(),
        }
    }

    /// Whether later deliveries of its ordering key wait for it.
    pub(super) fn holds(&self) -> bool {
        match self {
            Self::Fresh(..) => true,
            Self::Due(it) => it.row.holds,
        }
    }
}
