//! Padding: what the store may learn of a study's size.
//!
//! The manifest grows with the number and length of file names, so it is filled to a multiple of 64 KiB. The last pack is filled to the next Padmé
//! length (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", PoPETs 2019, section 4), which
//! keeps O(log log L) bits of the length and costs 12 percent at worst.

/// The manifest's plaintext is a multiple of this.
pub(super) const MANIFEST_UNIT: usize = 64 << 10;

/// Length of a manifest after padding.
pub(super) fn manifest_len(plain: usize) -> usize {
    plain.div_ceil(MANIFEST_UNIT).max(1) * MANIFEST_UNIT
}

/// Length after Padmé padding: the length rounded up so that only as many of its leading bits vary as its exponent has bits.
pub(super) fn padme(length: u64) -> u64 {
    if length < 2 {
        return length;
    }
    let exponent = length.ilog2();
    let kept = exponent.ilog2() + 1;
    let unit = 1u64 << (exponent - kept.min(exponent));
    length.div_ceil(unit).saturating_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_follows_its_definition() {
        // E = floor(log2 L), S = floor(log2 E) + 1, the low E - S bits become zero by rounding up. By hand:
        // 9: E=3, S=2, unit 2 -> 10; 100: E=6, S=3, unit 8 -> 104; 1,000,000: E=19, S=5, unit 2^14 -> 62*16,384 = 1,015,808.
        for (length, padded) in [(0, 0), (1, 1), (2, 2), (3, 3), (8, 8), (9, 10), (100, 104), (1_000_000, 1_015_808), (1 << 30, 1 << 30)] {
            assert_eq!(padme(length), padded, "{length}");
        }
    }

    #[test]
    fn padme_costs_at_most_12_percent_and_never_passes_a_power_of_two() {
        for length in (1..5000).chain((20..30).flat_map(|bits| [(1u64 << bits) - 1, (1 << bits) + 1])) {
            let padded = padme(length);
            assert!(padded >= length && padded as f64 <= length as f64 * 1.12, "{length} -> {padded}");
            assert!(padded <= length.next_power_of_two(), "{length} -> {padded}");
        }
    }

    #[test]
    fn a_manifest_fills_64_kib() {
        assert_eq!([0, 1, 65_536, 65_537].map(manifest_len), [65_536, 65_536, 65_536, 131_072]);
    }
}
