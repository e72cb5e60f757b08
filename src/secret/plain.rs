//! Decrypted content: overwritten when dropped, at the speed of memory.
//!
//! `Zeroizing<Vec<u8>>` overwrites what lies in the vector byte by byte, which cost an eighth of the time of opening a large study; what lies
//! behind a vector's length it overwrites in one go. So the length goes first.

use std::ops::{Deref, DerefMut};

use zeroize::Zeroize;

/// Bytes of a file or an object that were decrypted or may as well be.
#[derive(Default)]
pub struct Plain(Vec<u8>);

impl Plain {
    /// Takes bytes over. A vector that grows afterwards leaves copies behind: reserve what it will need.
    pub fn new(bytes: Vec<u8>) -> Plain {
        Plain(bytes)
    }
}

impl Deref for Plain {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for Plain {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl From<Vec<u8>> for Plain {
    fn from(bytes: Vec<u8>) -> Plain {
        Plain(bytes)
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl Zeroize for Plain {
    fn zeroize(&mut self) {
        self.0.clear();
        self.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(unsafe_code)]
    fn all_of_it_is_overwritten() {
        let mut plain = Plain::new(b"a name that nobody may read".to_vec());
        let length = plain.len();
        plain.zeroize();
        assert!(plain.is_empty() && plain.capacity() >= length);
        // SAFETY: these bytes were written before, as text and then as zeros.
        let left: Vec<u8> = plain.spare_capacity_mut().iter().take(length).map(|byte| unsafe { byte.assume_init() }).collect();
        assert_eq!(left, vec![0; length]);
    }
}
