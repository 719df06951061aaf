//! Attention in bf16 without a mask, where libtorch's own takes twice as long: on processors that multiply such numbers
//! but have no tiles for it, it multiplies wider ones.

#![allow(unsafe_code)]

use std::ffi::c_char;

use smartedit_core::engine::Precision;
use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::foreign::made;

unsafe extern "C" {
    fn smartedit_torch_has_attention() -> bool;

    fn smartedit_torch_attention(
        q: *const C_tensor,
        k: *const C_tensor,
        v: *const C_tensor,
        scale: f64,
        message: *mut c_char,
        length: usize,
    ) -> *mut C_tensor;
}

/// Whether this machine's processor is one of these.
pub(crate) fn is_available(precision: Precision) -> bool {
    // SAFETY: the function asks the processor and libtorch, which any thread may do at any time, and throws nothing.
    precision == Precision::Bf16 && unsafe { smartedit_torch_has_attention() }
}

/// Whether [`attention`] is for operands like these.
pub(crate) fn takes(q: &Tensor, k: &Tensor, v: &Tensor) -> bool {
    let ([batch, heads, _, depth], [_, _, keys, _]) = (&q.size()[..], &k.size()[..]) else { return false };
    let bf16 = [q, k, v].iter().all(|x| x.kind() == Kind::BFloat16);
    let like = |x: &Tensor, depth: Option<i64>| match x.size()[..] {
        [b, h, n, d] => (b, h, n) == (*batch, *heads, *keys) && depth.is_none_or(|depth| depth == d) && d > 0,
        _ => false,
    };
    bf16 && *keys > 0 && *depth > 0 && depth % 2 == 0 && like(k, Some(*depth)) && like(v, None)
}

/// The attention of queries `[batch, heads, n, d]` to keys `[batch, heads, m, d]` with values `[batch, heads, m, e]`, all
/// in the memory of a CPU.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Result<Tensor, TchError> {
    made(|message, length| {
        // SAFETY: the tensors are borrowed for the call and stay as they are. The message is as `made` wants it, and no
        // exception passes the border.
        unsafe { smartedit_torch_attention(q.as_ptr(), k.as_ptr(), v.as_ptr(), scale, message, length) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Batch, heads, queries, keys, and what each of the two and each value has.
    const SIZES: [[i64; 6]; 9] = [
        [3, 8, 64, 64, 40, 40],
        [1, 1, 1, 1, 2, 1],
        [2, 3, 65, 77, 40, 40],
        [1, 2, 7, 513, 80, 80],
        [1, 2, 130, 1055, 64, 64],
        [1, 1, 33, 1024, 512, 512],
        [2, 1, 5, 31, 6, 17],
        [1, 4, 3, 2, 16, 33],
        [1, 1, 0, 4, 8, 8],
    ];

    fn random(batch: i64, heads: i64, rows: i64, depth: i64) -> Tensor {
        let own = Tensor::randn([batch, rows, heads, depth], (Kind::Float, tch::Device::Cpu));
        own.to_kind(Kind::BFloat16).transpose(1, 2)
    }

    fn exact(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64) -> Tensor {
        let [q, k, v] = [q, k, v].map(|x| x.to_kind(Kind::Double));
        (q.matmul(&k.transpose(2, 3)) * scale).softmax(-1, None).matmul(&v)
    }

    fn farthest(found: &Tensor, expected: &Tensor) -> f64 {
        let apart = (found.to_kind(Kind::Double) - expected).abs();
        if apart.numel() == 0 { 0.0 } else { apart.max().double_value(&[]) }
    }

    #[test]
    fn it_is_as_near_as_libtorchs_own() {
        if !is_available(Precision::Bf16) {
            return;
        }
        tch::manual_seed(1);
        for [batch, heads, rows, keys, depth, width] in SIZES {
            let q = random(batch, heads, rows, depth);
            let (k, v) = (random(batch, heads, keys, depth), random(batch, heads, keys, width));
            // The last is far from what a number of 32 bits can be raised to.
            for scale in [1.0 / (depth as f64).sqrt(), 0.0, -0.3, 40.0] {
                assert!(takes(&q, &k, &v));
                let found = attention(&q, &k, &v, scale).unwrap();
                assert_eq!((found.size(), found.kind()), (vec![batch, heads, rows, width], Kind::BFloat16));
                let expected = exact(&q, &k, &v, scale);
                let own = Tensor::scaled_dot_product_attention(
                    &q,
                    &k,
                    &v,
                    None::<Tensor>,
                    0.0,
                    false,
                    scale,
                    false,
                );
                let (apart, own) = (farthest(&found, &expected), farthest(&own, &expected));
                assert!(
                    apart <= 1.5 * own + 1e-3,
                    "{apart} and {own}: {:?}, {keys} keys, scale {scale}",
                    q.size()
                );
            }
        }
    }

    #[test]
    fn whatever_lies_in_memory_is_read_as_it_is() {
        if !is_available(Precision::Bf16) {
            return;
        }
        let (q, k, v) = (random(2, 2, 9, 12), random(1, 2, 11, 12), random(1, 2, 11, 12));
        let (k, v) = (k.expand([2, 2, 11, 12], false), v.expand([2, 2, 11, 12], false));
        let expected = attention(&q, &k.contiguous(), &v.contiguous(), 0.3).unwrap();
        // Elements of a row apart, rows that are one and the same, and rows that begin where no 32 bits do.
        let apart = |x: &Tensor| x.transpose(2, 3).contiguous().transpose(2, 3);
        let odd = |x: &Tensor| Tensor::cat(&[x, &x.slice(3, 0, 1, 1)], 3).slice(3, 0, 12, 1);
        for other in [apart, odd] {
            assert_eq!(attention(&other(&q), &other(&k), &other(&v), 0.3).unwrap(), expected);
        }
        assert_eq!(attention(&q, &k, &v, 0.3).unwrap(), expected);
        let same = q.slice(2, 0, 1, 1).expand([2, 2, 9, 12], false);
        let one = attention(&same, &k, &v, 0.3).unwrap();
        assert_eq!(one.slice(2, 8, 9, 1), expected.slice(2, 0, 1, 1));
    }

    #[test]
    fn what_is_no_number_stays_none() {
        if !is_available(Precision::Bf16) {
            return;
        }
        let (q, k, v) = (random(1, 1, 3, 8), random(1, 1, 40, 8), random(1, 1, 40, 8));
        let _ = q.get(0).get(0).get(1).fill_(f64::NAN);
        let rows = attention(&q, &k, &v, 1.0).unwrap().isnan().all_dim(3, false);
        assert_eq!(Vec::<bool>::try_from(rows.flatten(0, -1)).unwrap(), [false, true, false]);
        let _ = v.get(0).get(0).get(39).fill_(f64::NAN);
        assert!(bool::try_from(attention(&q, &k, &v, 1.0).unwrap().isnan().all()).unwrap());
    }

    #[test]
    fn what_does_not_fit_is_an_error_with_a_reason() {
        let (q, k, v) = (random(1, 1, 3, 8), random(1, 1, 4, 8), random(1, 1, 5, 8));
        assert!(!takes(&q, &k, &v));
        assert!(!takes(&q, &k.to_kind(Kind::Float), &v));
        assert!(!takes(&q.get(0), &k, &k));
        assert!(!takes(&random(1, 1, 3, 7), &random(1, 1, 4, 7), &k));
        assert!(!takes(&q, &random(1, 1, 0, 8), &random(1, 1, 0, 8)));
        let error = attention(&q, &k, &v, 1.0).unwrap_err().to_string();
        assert!(error.contains("of different sizes") || !is_available(Precision::Bf16), "{error}");
    }
}
