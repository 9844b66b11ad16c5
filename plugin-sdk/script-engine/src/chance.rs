//! Time and chance are the event's own, so that a call can be repeated exactly.

use std::cell::Cell;

thread_local! {
    static NOW_MS: Cell<u64> = const { Cell::new(0) };
    static STATE: Cell<u64> = const { Cell::new(1) };
}

/// From now on it is `now_ms`, and chance follows from `seed`.
pub(crate) fn at(now_ms: u64, seed: &[u8]) {
    NOW_MS.set(now_ms);
    // FNV-1a.
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    STATE.set(seed.iter().fold(0xcbf2_9ce4_8422_2325, mix) | 1);
}

/// `Math.random()`: xorshift64*, 53 bits of it.
pub(crate) fn random() -> f64 {
    let mut state = STATE.get();
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    STATE.set(state);
    let drawn = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
    drawn as f64 / (1_u64 << 53) as f64
}

/// What QuickJS asks for the time, in microseconds.
#[unsafe(no_mangle)]
extern "C" fn __rquickjs_host_now_us() -> f64 {
    NOW_MS.get() as f64 * 1000.0
}
