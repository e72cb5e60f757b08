//! Bytes that must not outlive their use: keys, passphrases, tokens.
//!
//! A [`Secret`] lives on the heap at one address for its whole life, is kept out of swap and core dumps where the system allows
//! it, and is overwritten when it is dropped. It has no `Debug`, no `Display`, no `Clone` and no `Serialize`, so it cannot reach a
//! log or a file by accident.

use zeroize::Zeroize;

/// A value that is locked in memory and overwritten when dropped.
pub struct Secret<T: Zeroize> {
    value: Box<T>,
}

impl<T: Zeroize> Secret<T> {
    /// Takes over a value. The caller's copy, if it made one, is the caller's to erase.
    pub fn new(value: T) -> Secret<T> {
        let value = Box::new(value);
        memory::lock(&raw const *value as *const u8, size_of::<T>());
        Secret { value }
    }

    /// The value, for as short a time as possible.
    pub fn expose(&self) -> &T {
        &self.value
    }

    /// The value, to be filled in place.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.value.zeroize();
        memory::unlock(&raw const *self.value as *const u8, size_of::<T>());
    }
}

/// The one place that asks the system to keep pages in memory and out of dumps.
#[allow(unsafe_code)]
mod memory {
    /// Best effort: a container without CAP_IPC_LOCK or a low RLIMIT_MEMLOCK refuses, and the secret is still erased on drop.
    pub(super) fn lock(start: *const u8, length: usize) {
        if length == 0 {
            return;
        }
        // SAFETY: mlock reads no memory; it takes any mapped range, and `start..start + length` is a live heap object.
        unsafe { libc::mlock(start.cast(), length) };
    }

    /// Pages may be shared with another locked secret; unlocking early only loses the swap guard of that page.
    pub(super) fn unlock(start: *const u8, length: usize) {
        if length == 0 {
            return;
        }
        // SAFETY: as for `lock`: the object is still live when its drop guard runs.
        unsafe { libc::munlock(start.cast(), length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    struct Probe(Rc<Cell<bool>>);
    impl Zeroize for Probe {
        fn zeroize(&mut self) {
            self.0.set(true);
        }
    }

    #[test]
    fn a_dropped_secret_is_overwritten() {
        let wiped = Rc::new(Cell::new(false));
        drop(Secret::new(Probe(Rc::clone(&wiped))));
        assert!(wiped.get());
    }

    #[test]
    fn the_value_stays_where_it_was_locked() {
        let secret = Secret::new([7u8; 32]);
        let before = secret.expose().as_ptr();
        let moved = secret;
        assert_eq!(before, moved.expose().as_ptr());
        assert_eq!(moved.expose(), &[7u8; 32]);
    }
}
