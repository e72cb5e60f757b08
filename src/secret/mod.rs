//! Bytes that must not outlive their use: keys, passphrases, tokens.
//!
//! A [`Secret`] lives at one address for its whole life, in the arena of this process: memory between guard pages that is kept out of swap
//! and core dumps where the system allows it, that a forked child finds empty, and that is overwritten when the secret is dropped. It has no
//! `Debug`, no `Display`, no `Clone` and no `Serialize`, so it cannot reach a log or a file by accident.
//!
//! Texts and byte vectors move into the arena whole: their own buffer is overwritten at once, and what is seen of them is `&str` and
//! `&[u8]`. When the arena cannot take a secret (no memory map, larger than a region, a mebibyte in use) it goes to the ordinary heap, still
//! overwritten on drop; [`arena_facts`] tells how many did, and what the system granted.
//!
//! The arithmetic on a secret happens elsewhere: registers, stacks and the working copies of the cryptographic libraries are theirs to erase.

#[allow(unsafe_code)]
mod arena;
mod plain;

use std::sync::atomic::{AtomicUsize, Ordering};

use zeroize::Zeroize;

use arena::Slot;

pub use arena::ArenaFacts;
pub use plain::Plain;

/// Secrets that are on the ordinary heap at this moment.
static ON_HEAP: AtomicUsize = AtomicUsize::new(0);

/// A value that is locked in memory and overwritten when dropped.
pub struct Secret<T: Keep> {
    place: Place<T::Exposed>,
}

/// What can be a [`Secret`]: arrays, byte vectors and texts.
pub trait Keep: Sized {
    /// What is seen of the secret; for a text or vector its contents, because the buffer itself does not survive.
    type Exposed: ?Sized + Zeroize;

    /// Moves the value to where secrets live and overwrites where it came from.
    #[doc(hidden)]
    fn keep(self) -> Place<Self::Exposed>;
}

impl<T: Keep> Secret<T> {
    /// Takes over a value. Copies that the caller made, or the compiler on its way here, are the caller's to erase: where it matters, begin
    /// with zeros and fill them in place.
    pub fn new(value: T) -> Secret<T> {
        Secret { place: value.keep() }
    }

    /// The value, for as short a time as possible.
    ///
    /// # Panics
    /// In a child process that was forked after the secret was made: there it does not exist, and zeros must not pass for a key.
    pub fn expose(&self) -> &T::Exposed {
        match &self.place {
            Place::Arena(slot) => slot.value(),
            Place::Heap(value, _) => value,
        }
    }

    /// The value, to be filled in place.
    ///
    /// # Panics
    /// As [`Secret::expose`].
    pub fn expose_mut(&mut self) -> &mut T::Exposed {
        match &mut self.place {
            Place::Arena(slot) => slot.value_mut(),
            Place::Heap(value, _) => value,
        }
    }

    /// Whether the system agreed to keep this secret out of swap.
    pub fn is_locked(&self) -> bool {
        matches!(&self.place, Place::Arena(slot) if slot.is_locked())
    }
}

/// What the arena of this process is worth at this moment.
pub fn arena_facts() -> ArenaFacts {
    ArenaFacts { on_heap: ON_HEAP.load(Ordering::Relaxed), ..arena::facts() }
}

impl<T: Zeroize, const N: usize> Keep for [T; N] {
    type Exposed = [T; N];

    fn keep(self) -> Place<[T; N]> {
        Place::of(self)
    }
}

impl Keep for String {
    type Exposed = str;

    fn keep(mut self) -> Place<str> {
        let place = Slot::of_text(&self).map_or_else(|| Place::heap(Box::from(self.as_str())), Place::Arena);
        self.zeroize();
        place
    }
}

impl Keep for Vec<u8> {
    type Exposed = [u8];

    fn keep(mut self) -> Place<[u8]> {
        let place = Slot::of_bytes(&self).map_or_else(|| Place::heap(Box::from(self.as_slice())), Place::Arena);
        self.zeroize();
        place
    }
}

/// Where a secret lives.
#[doc(hidden)]
pub enum Place<E: ?Sized + Zeroize> {
    /// In the arena.
    Arena(Slot<E>),
    /// On the ordinary heap, because the arena refused.
    Heap(Box<E>, Counted),
}

impl<E: Zeroize> Place<E> {
    fn of(value: E) -> Place<E> {
        Slot::new(value).map_or_else(|value| Place::heap(Box::new(value)), Place::Arena)
    }
}

impl<E: ?Sized + Zeroize> Place<E> {
    fn heap(value: Box<E>) -> Place<E> {
        // What has no size is nowhere, and no secret.
        let count = usize::from(size_of_val(&*value) > 0);
        ON_HEAP.fetch_add(count, Ordering::Relaxed);
        Place::Heap(value, Counted(count))
    }
}

impl<E: ?Sized + Zeroize> Drop for Place<E> {
    fn drop(&mut self) {
        // A slot of the arena overwrites itself.
        if let Place::Heap(value, _) = self {
            value.zeroize();
        }
    }
}

/// A share in the count of secrets on the heap.
#[doc(hidden)]
pub struct Counted(usize);

impl Drop for Counted {
    fn drop(&mut self) {
        ON_HEAP.fetch_sub(self.0, Ordering::Relaxed);
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
    fn a_dropped_secret_is_overwritten_and_dropped() {
        let wiped = Rc::new(Cell::new(false));
        drop(Secret::new([Probe(Rc::clone(&wiped))]));
        assert!(wiped.get());
        assert_eq!(Rc::strong_count(&wiped), 1, "what the value owned is freed");
    }

    #[test]
    fn the_value_stays_where_it_was_locked() {
        let secret = Secret::new([7u8; 32]);
        let before = secret.expose().as_ptr();
        let moved = secret;
        assert_eq!(before, moved.expose().as_ptr());
        assert_eq!(moved.expose(), &[7u8; 32]);
    }

    #[test]
    fn a_text_and_a_vector_live_in_the_arena_with_their_contents() {
        let mut text = Secret::new("a päßphrase".to_owned());
        assert_eq!(text.expose(), "a päßphrase");
        assert!(arena::holds(text.expose().as_ptr()));
        text.expose_mut().make_ascii_uppercase();
        assert_eq!(text.expose(), "A PäßPHRASE");
        let bytes = Secret::new(vec![5u8; 100]);
        assert_eq!(bytes.expose(), [5; 100]);
        assert!(arena::holds(bytes.expose().as_ptr()));
        assert_eq!(Secret::new(String::new()).expose(), "");
        assert!(Secret::new([0u8; 0]).expose().is_empty());
    }

    #[test]
    fn what_the_arena_cannot_take_goes_to_the_heap_and_is_counted() {
        #[derive(Clone, Copy)]
        #[repr(align(65536))]
        struct Aligned(u8);
        impl Zeroize for Aligned {
            fn zeroize(&mut self) {
                self.0.zeroize();
            }
        }
        let large = Secret::new(vec![1u8; 1 << 20]);
        let aligned = Secret::new([Aligned(3)]);
        assert_eq!((large.expose().len(), aligned.expose()[0].0), (1 << 20, 3));
        assert!(!arena::holds(large.expose().as_ptr()) && !large.is_locked());
        assert!(arena_facts().on_heap >= 2 && !arena_facts().is_locked());
    }

    #[test]
    fn secrets_of_many_threads_keep_apart() {
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..500usize {
                        let value = thread.wrapping_mul(31).wrapping_add(round as u8);
                        let mut secret = Secret::new(vec![0u8; 1 + round * 7 % 300]);
                        assert!(secret.expose().iter().all(|byte| *byte == 0));
                        secret.expose_mut().fill(value);
                        held.push((value, secret));
                        if round % 3 == 0 {
                            held.swap_remove(round % held.len());
                        }
                        if round % 50 == 0 {
                            held.truncate(5);
                        }
                        assert!(held.iter().all(|(value, secret)| secret.expose().iter().all(|byte| byte == value)));
                    }
                });
            }
        });
    }
}
