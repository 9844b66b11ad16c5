/// A share from nothing to all, in millionths: exact on disk and the same in every comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(u32);

const WHOLE: u32 = 1_000_000;

impl Share {
    /// The share `0.0..=1.0`; anything else is `None`.
    pub fn of(share: f64) -> Option<Self> {
        let fits = (0.0..=1.0).contains(&share);
        fits.then(|| Self((share * f64::from(WHOLE)).round() as u32))
    }

    /// How many of all; none of none is nothing.
    pub fn ratio(some: u64, all: u64) -> Self {
        let millionths = u128::from(some) * u128::from(WHOLE) / u128::from(all.max(1));
        Self(u32::try_from(millionths).map_or(WHOLE, |it| it.min(WHOLE)))
    }

    /// It in millionths.
    pub fn millionths(self) -> u32 {
        self.0
    }

    /// From millionths; more than all is all.
    pub fn from_millionths(millionths: u32) -> Self {
        Self(millionths.min(WHOLE))
    }

    /// As a number.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / f64::from(WHOLE)
    }

    /// Whether what has this name falls into the share: decided by the name alone.
    pub fn covers(self, name: impl Iterator<Item = u8>) -> bool {
        // FNV-1a, then the finaliser of SplitMix64, since FNV's high bits mix badly.
        let step = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let mut hash = name.fold(0xcbf2_9ce4_8422_2325, step);
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        hash ^= hash >> 31;
        // The high half, scaled to the whole: no remainder, so no bias that matters.
        ((hash >> 32) * u64::from(WHOLE)) >> 32 < u64::from(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_exact_at_their_ends() {
        let names = || (0_u32..5000).map(|it| it.to_le_bytes().into_iter());
        assert!(names().all(|it| Share::of(1.0).unwrap().covers(it)));
        assert!(!names().any(|it| Share::of(0.0).unwrap().covers(it)));
        assert_eq!((Share::of(1.1), Share::of(-0.1), Share::of(f64::NAN)), (None, None, None));
        assert_eq!(Share::of(0.05).unwrap().as_f64(), 0.05);
        assert_eq!(Share::ratio(1, 4), Share::of(0.25).unwrap());
        assert_eq!(Share::ratio(0, 0), Share::of(0.0).unwrap());
    }
}
