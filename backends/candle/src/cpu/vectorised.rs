//! Loops that the compiler vectorises for the processor at hand.

use pulp::{Arch, NullaryFnOnce};

/// Calls a function as compiled for the widest vectors that this processor has. All that it calls must be inlined into it,
/// itself included: `#[inline(always)]`.
#[inline(always)]
pub(super) fn vectorised<R>(function: impl FnMut() -> R) -> R {
    Arch::new().dispatch(Inlined(function))
}

/// Joins partial results, the number of which is a power of two, by halves.
#[inline(always)]
pub(super) fn joined<const LANES: usize>(mut partial: [f32; LANES], join: impl Fn(f32, f32) -> f32) -> f32 {
    const { assert!(LANES.is_power_of_two()) };
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            partial[lane] = join(partial[lane], partial[lane + half]);
        }
        half /= 2;
    }
    partial[0]
}

/// A closure that is called as what it is. Where it is called as an [`FnOnce`], its body lies behind a function that nothing
/// makes the compiler inline, and that is compiled for any processor.
struct Inlined<F>(F);

impl<R, F: FnMut() -> R> NullaryFnOnce for Inlined<F> {
    type Output = R;

    #[inline(always)]
    fn call(mut self) -> R {
        (self.0)()
    }
}
