//! Weighted rendezvous hashing: every deployment draws a number for a key, and the highest wins.
//!
//! A deployment's draw depends on nothing but the key, its name and its weight. So a key goes to the same deployment on every
//! server, and a change of weights moves only keys that come to a deployment whose weight has grown, or leave one whose
//! weight has shrunk. The logarithm makes shares proportional to weights; see Schindelhauer and Schomaker, "Weighted
//! distributed hash tables", 2005.

use sha2::{Digest, Sha256};

/// The deployment that a key belongs to, of those with their weights; `None` if no weight is above 0.
pub(super) fn choose<'a>(
    route: &str,
    key: &[u8],
    targets: impl Iterator<Item = (&'a str, f64)>,
) -> Option<&'a str> {
    let weighty = targets.filter(|(_, weight)| *weight > 0.0);
    let drawn = weighty.map(|(name, weight)| (name, weight / -unit(route, key, name).ln()));
    drawn.max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(name, _)| name)
}

/// A number in (0, 1) that looks random and is the same whenever it is asked for.
fn unit(route: &str, key: &[u8], target: &str) -> f64 {
    let mut hash = Sha256::new();
    for part in [route.as_bytes(), key, target.as_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&digest[..8]);
    // 53 bits, and a half so that it is never 0 or 1.
    ((u64::from_le_bytes(bytes) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn of(key: u32, weights: &[f64]) -> Option<&'static str> {
        choose("default", &key.to_le_bytes(), NAMES.into_iter().zip(weights.iter().copied()))
    }

    #[test]
    fn shares_are_those_of_the_weights() {
        let weights = [90.0, 9.0, 1.0, 0.0];
        let keys = 100_000;
        let mut counts = BTreeMap::new();
        (0..keys).for_each(|key| *counts.entry(of(key, &weights).unwrap()).or_insert(0.0) += 1.0);
        for (name, weight) in NAMES.into_iter().zip(weights) {
            let (expected, found) =
                (weight / 100.0, counts.get(name).copied().unwrap_or(0.0) / f64::from(keys));
            // Five standard deviations of a binomial share.
            let slack = 5.0 * (expected * (1.0 - expected) / f64::from(keys)).sqrt();
            assert!((found - expected).abs() <= slack, "{name}: {found}");
        }
    }

    #[test]
    fn a_key_goes_where_it_has_always_gone() {
        // Written down so that another version of the server does not move everybody.
        let chosen: String = (0..24).filter_map(|key| of(key, &[1.0; 4])).collect();
        assert_eq!(chosen, "abacddabacdbddbbccbddacc");
    }

    #[test]
    fn routes_choose_independently() {
        let weights = || NAMES.into_iter().map(|name| (name, 1.0));
        let same = (0..1000_u32).filter(|key| {
            choose("x", &key.to_le_bytes(), weights()) == choose("y", &key.to_le_bytes(), weights())
        });
        assert!((150..350).contains(&same.count()));
    }

    #[test]
    fn without_weight_nothing_is_chosen() {
        assert_eq!(of(1, &[0.0; 4]), None);
        assert_eq!(of(1, &[]), None);
    }

    fn weight() -> impl Strategy<Value = f64> {
        prop_oneof![Just(0.0), 0.001..1000.0]
    }

    proptest! {
        #[test]
        fn only_keys_that_must_move_do(
            before in prop::array::uniform4(weight()),
            changed in 0..4_usize,
            weight in weight(),
            key: u32,
        ) {
            let mut after = before;
            after[changed] = weight;
            let (was, is) = (of(key, &before), of(key, &after));
            if was != is {
                let name = NAMES[changed];
                let (gainer, loser) = if weight > before[changed] { (is, was) } else { (was, is) };
                prop_assert_eq!(gainer, Some(name));
                prop_assert_ne!(loser, Some(name));
            }
        }

        #[test]
        fn the_order_of_deployments_does_not_matter(weights in prop::array::uniform4(0.001..1000.0), key: u32) {
            let pairs = NAMES.into_iter().zip(weights);
            prop_assert_eq!(of(key, &weights), choose("default", &key.to_le_bytes(), pairs.rev()));
        }
    }
}
