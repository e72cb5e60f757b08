//! Microsoft's QuickXorHash: the bytes of a file, each shifted 11 bits further than the one before around 160 bits, and the length.
//!
//! It finds what changed by accident and nothing that was changed on purpose; what a sender signed is checked elsewhere. After "QuickXorHash
//! Algorithm" in the OneDrive developer documentation.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Bits of the hash.
const WIDTH: usize = 160;
/// Bits between the places of two bytes that follow each other.
const SHIFT: usize = 11;

/// A hash of bytes that come in order.
pub(super) struct QuickXorHash {
    /// The bytes with the same number modulo 160 have the same place, so they are folded first.
    folded: [u8; WIDTH],
    length: u64,
}

impl QuickXorHash {
    pub fn new() -> QuickXorHash {
        QuickXorHash { folded: [0; WIDTH], length: 0 }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        // A remainder of 160 fits.
        let start = usize::try_from(self.length % WIDTH as u64).unwrap_or(0);
        let (first, rest) = bytes.split_at(bytes.len().min(WIDTH - start));
        fold(self.folded.get_mut(start..).unwrap_or_default(), first);
        rest.chunks(WIDTH).for_each(|chunk| fold(&mut self.folded, chunk));
        self.length += bytes.len() as u64;
    }

    /// The hash in base64, as Microsoft writes it.
    pub fn text(&self) -> String {
        let mut hash = [0u8; WIDTH / 8];
        for (number, byte) in self.folded.iter().enumerate() {
            let (place, bits) = (number * SHIFT % WIDTH / 8, number * SHIFT % 8);
            let [low, high] = (u16::from(*byte) << bits).to_le_bytes();
            for (at, part) in [(place, low), ((place + 1) % hash.len(), high)] {
                if let Some(cell) = hash.get_mut(at) {
                    *cell ^= part;
                }
            }
        }
        let tail = hash.len() - size_of::<u64>();
        fold(hash.get_mut(tail..).unwrap_or_default(), &self.length.to_le_bytes());
        STANDARD.encode(hash)
    }
}

fn fold(into: &mut [u8], bytes: &[u8]) {
    into.iter_mut().zip(bytes).for_each(|(cell, byte)| *cell ^= byte);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_other_implementations() {
        // Input and hash out of the test vectors of rclone's QuickXorHash, which were made with Microsoft's own code.
        for (input, expected) in [
            ("", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
            ("Sg==", "SgAAAAAAAAAAAAAAAQAAAAAAAAA="),
            ("jRRDVA==", "jaDAEKgAAAAAAAAABAAAAAAAAAA="),
            ("T6LYJIfDh81JrAK309H2JMJTXis=", "zBTHrspn3mEcohlJdIUAbjGNaNg="),
            ("Mb7EGva2rEE5fENDL85P+BsapHEEjv2/siVhKjvAQe02feExVOQSkfmuYzU/kTF1MaKjPmKF/w+cbvwfdWL8aQ==", "n1anP5NfvD4XDYWIeRPW3ZkPv1Y="),
            (
                "PfxMcUd0vIW6VbHG/uj/Y0W6qEoKmyBD0nYebEKazKaKG+UaDqBEcmQjbfQeVnVLuodMoPp7P7TR1htX5n2VnkHh22xDyoJ8C/ZQKiSNqQfXvh83judf\
                 4RVr9exJCud8Uvgip6aVZTaPrJHVjQhMCp/dEnGvqg0oN5OVkM2qqAXvA0teKUDhgNM71sDBVBCGXxNOR2bpbD1iM4dnuT0ey4L+loXEHTL0fqMeUcEi\
                 2asgImnlNakwenDzz0x57aBwyq3AspCFGB1ncX4yYCr/OaCcS5OKi/00WH+wNQU3",
                "QX/YEpG0gDsmhEpCdWhsxDzsfVE=",
            ),
        ] {
            let bytes = STANDARD.decode(input).unwrap();
            for piece in [1, 7, 64, 160, 500] {
                let mut hash = QuickXorHash::new();
                bytes.chunks(piece).for_each(|part| hash.update(part));
                assert_eq!(hash.text(), expected, "{} bytes in pieces of {piece}", bytes.len());
            }
        }
    }
}
