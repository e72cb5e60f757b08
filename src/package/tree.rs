//! The tree hash of an object: RFC 9162 (2.1.1) over ranges of 512 sealed chunks.
//!
//! The root stands in the signed header, the leaves in the manifest. A receiver that holds the leaves checks each range of about 8 MiB
//! on its own, in any order, against the sender's signature. Leaves and nodes are hashed under different first bytes, so a node can never be
//! passed off as a leaf.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::chunked::{PREFIX, SEALED_CHUNK};

/// A SHA-256 digest.
pub(super) type Hash = [u8; 32];

/// Chunks of one range.
pub(super) const RANGE_CHUNKS: usize = 512;

/// Sealed bytes of a full range; the first has the object's prefix besides.
const RANGE: u64 = (RANGE_CHUNKS * SEALED_CHUNK) as u64;

/// Hash of one range.
pub(super) fn leaf(range: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(range).finalize().into()
}

/// Root over the leaves, in order.
pub(super) fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            // The left side is the largest power of two below the number of leaves (RFC 9162, 2.1.1).
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            Sha256::new().chain_update([1]).chain_update(root(left)).chain_update(root(right)).finalize().into()
        }
    }
}

/// Number of ranges of a sealed object.
pub(super) fn range_count(sealed: u64) -> u64 {
    sealed.saturating_sub(PREFIX as u64).div_ceil(RANGE).max(1)
}

/// The ranges of a sealed object, in order.
pub(super) fn ranges(sealed: u64) -> Vec<Range<u64>> {
    let edge = |number: u64| if number == 0 { 0 } else { sealed.min(PREFIX as u64 + number * RANGE) };
    (0..range_count(sealed)).map(|number| edge(number)..edge(number + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::hex;

    /// The roots that the Certificate Transparency code bases publish for these eight leaves (RFC 6962 and RFC 9162 agree on them).
    #[test]
    fn roots_are_those_of_certificate_transparency() {
        let data: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let roots = [
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        let leaves: Vec<Hash> = data.iter().map(|data| leaf(data)).collect();
        for (count, expected) in roots.iter().enumerate() {
            assert_eq!(hex(&root(&leaves[..count])), *expected, "{count} leaves");
        }
    }

    #[test]
    fn ranges_cover_an_object_without_gap_or_overlap() {
        // 512 * 16,400 = 8,396,800
        let check = |sealed: u64, edges: &[u64]| {
            let expected: Vec<Range<u64>> = edges.windows(2).map(|pair| pair[0]..pair[1]).collect();
            assert_eq!(ranges(sealed), expected, "{sealed}");
        };
        check(72, &[0, 72]);
        check(56 + 8_396_800, &[0, 8_396_856]);
        check(56 + 8_396_800 + 16, &[0, 8_396_856, 8_396_872]);
        check(56 + 2 * 8_396_800 + 100, &[0, 8_396_856, 16_793_656, 16_793_756]);
    }
}
