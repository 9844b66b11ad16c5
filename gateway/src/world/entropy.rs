use std::{
    cell::RefCell,
    sync::{Mutex, PoisonError},
};

thread_local! {
    /// Numbers that this thread got from the machine and has not given out.
    static DRAWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

/// Gives chance: ids, secrets and jitter are drawn here and nowhere else.
pub trait Entropy: Send + Sync + 'static {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);

    /// A random number.
    fn draw(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random number in `0.0..1.0`.
    fn fraction(&self) -> f64 {
        // 53 bits are what an f64 holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let drawn = (self.draw() >> 11) as f64;
        drawn / (1_u64 << 53) as f64
    }
}

/// The operating system's generator; fit for secrets. A thread draws its numbers
/// many at once: an event needs two or three, and to ask for each costs as much as to parse it.
#[derive(Debug, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the machine")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }

    fn draw(&self) -> u64 {
        DRAWN.with_borrow_mut(|drawn| {
            if drawn.is_empty() {
                let mut bytes = [0; 512];
                self.fill(&mut bytes);
                drawn.extend(bytes.as_chunks().0.iter().map(|it| u64::from_le_bytes(*it)));
            }
            drawn.pop().expect("some were just drawn")
        })
    }
}

/// A repeatable generator (SplitMix64) for simulations; never for secrets.
#[derive(Debug)]
pub struct SeededEntropy(Mutex<u64>);

impl SeededEntropy {
    /// The same seed draws the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let drawn = self.draw().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }

    fn draw(&self) -> u64 {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_numbers_differ_also_between_threads() {
        let draw = || (0..200).map(|_| SystemEntropy.draw()).collect::<Vec<_>>();
        let other = std::thread::spawn(draw);
        let mut drawn = draw();
        drawn.extend(other.join().unwrap());
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 400);
    }

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        let (first, second) = (SeededEntropy::new(7), SeededEntropy::new(7));
        let mut bytes = [0; 11];
        first.fill(&mut bytes);
        second.fill(&mut [0; 11]);
        assert_eq!(first.draw(), second.draw());
        assert!((0.0..1.0).contains(&first.fraction()));
    }
}
