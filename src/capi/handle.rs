//! Handles: what C holds instead of an address.
//!
//! A handle is a number in the shape of a pointer. It is looked up and never followed, so a freed, foreign, doubled or invented
//! handle is an error instead of a crash, and a handle of another noun is recognised. The number holds a slot of one table for
//! the whole library, the slot's generation, and check bits that differ from process to process:
//!
//! ```text
//! 63   62..45   44..21       20..1   0
//!  0   check    generation   slot    1        (odd, hence never the address of an object)
//! ```
//!
//! A slot's generation rises each time it is freed, and a slot whose generations are used up is retired: no handle value is ever
//! given out twice. A call holds an [`Arc`] of its object, so another thread may free the handle meanwhile; the object then ends
//! with the last call that uses it. The table's lock is held for the look-up only, never while an object works or ends.

use std::any::Any;
use std::hash::{BuildHasher, RandomState};
use std::marker::PhantomData;
use std::sync::{Arc, LazyLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::{Error, Kind, Result};

const SLOT_BITS: u32 = 20;
const GENERATION_BITS: u32 = 24;
const CHECK_BITS: u32 = 18;

// One bit says "odd", and the sign bit stays clear for languages whose pointers are signed integers.
const _: () = assert!(1 + SLOT_BITS + GENERATION_BITS + CHECK_BITS == 63 && usize::BITS == 64);

/// One noun of the API: the opaque type that C sees, and the Rust type behind it.
pub(super) struct Noun<Opaque, T> {
    name: &'static str,
    types: PhantomData<fn(*mut Opaque) -> T>,
}

impl<Opaque, T: Send + Sync + 'static> Noun<Opaque, T> {
    /// A noun by the name that error messages give it.
    pub(super) const fn new(name: &'static str) -> Noun<Opaque, T> {
        Noun { name, types: PhantomData }
    }

    /// Keeps an object and gives it a handle.
    pub(super) fn add(&self, object: T) -> Result<*mut Opaque> {
        let token = table_mut().add(Entry { noun: self.name, object: Arc::new(object) })?;
        Ok(std::ptr::without_provenance_mut(token))
    }

    /// The object of a live handle of this noun.
    pub(super) fn get(&self, handle: *mut Opaque, parameter: &str) -> Result<Arc<T>> {
        if handle.is_null() {
            return Err(Error::new(Kind::NullArgument, parameter.to_owned()));
        }
        let entry = table().get(handle.addr()).ok_or_else(|| Error::new(Kind::InvalidHandle, parameter.to_owned()))?;
        let other = entry.noun;
        entry.object.downcast().map_err(|_| {
            let detail = format!("{parameter} has the type {other} instead of {}", self.name);
            Error::new(Kind::InvalidHandle, detail).with_hint("pass the handle that the function's parameter names")
        })
    }

    /// Ends a handle. NULL, a dead handle and a handle of another noun are left alone in silence.
    pub(super) fn free(&self, handle: *mut Opaque) {
        let removed = table_mut().remove(handle.addr(), |entry| entry.object.is::<T>());
        // The object ends here, after the table was unlocked: its destructor may take long or call the library.
        drop(removed);
    }
}

/// Number of live handles of all nouns.
pub(super) fn live() -> usize {
    let table = table();
    table.slots.iter().filter(|slot| slot.entry.is_some()).count()
}

#[derive(Clone)]
struct Entry {
    noun: &'static str,
    object: Arc<dyn Any + Send + Sync>,
}

#[derive(Default)]
struct Slot {
    generation: usize,
    entry: Option<Entry>,
}

#[derive(Default)]
struct Table {
    slots: Vec<Slot>,
    vacant: Vec<usize>,
}

static TABLE: LazyLock<RwLock<Table>> = LazyLock::new(RwLock::default);
static CHECK: LazyLock<RandomState> = LazyLock::new(RandomState::new);

// The table is whole between any two statements that can panic, so a poisoned lock is as good as a sound one.
fn table() -> RwLockReadGuard<'static, Table> {
    TABLE.read().unwrap_or_else(PoisonError::into_inner)
}

fn table_mut() -> RwLockWriteGuard<'static, Table> {
    TABLE.write().unwrap_or_else(PoisonError::into_inner)
}

impl Table {
    fn add(&mut self, entry: Entry) -> Result<usize> {
        let index = match self.vacant.pop() {
            Some(index) => index,
            None if self.slots.len() < 1 << SLOT_BITS => {
                self.slots.push(Slot::default());
                self.slots.len() - 1
            }
            None => return Err(Error::new(Kind::LimitExceeded, "1048576 handles are live").with_hint("free handles that are done with")),
        };
        let slot = self.slots.get_mut(index).ok_or_else(|| Error::new(Kind::Internal, "handle table"))?;
        slot.entry = Some(entry);
        Ok(token(index, slot.generation))
    }

    fn get(&self, token: usize) -> Option<Entry> {
        let index = slot_of(token)?;
        self.slots.get(index).filter(|slot| self::token(index, slot.generation) == token)?.entry.clone()
    }

    fn remove(&mut self, token: usize, is_wanted: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let index = slot_of(token)?;
        let slot = self.slots.get_mut(index).filter(|slot| self::token(index, slot.generation) == token)?;
        let entry = slot.entry.take_if(|entry| is_wanted(entry))?;
        slot.generation += 1;
        // A slot past its last generation is never filled again.
        if slot.generation < 1 << GENERATION_BITS {
            self.vacant.push(index);
        }
        Some(entry)
    }
}

/// The handle value of a slot in a generation.
fn token(index: usize, generation: usize) -> usize {
    // The hash is keyed by random numbers of this process, so a handle of another copy of the library does not fit.
    let [b0, b1, b2, ..] = CHECK.hash_one((index, generation)).to_ne_bytes();
    let check = usize::from(b0) | usize::from(b1) << 8 | usize::from(b2 & 3) << 16;
    check << (1 + SLOT_BITS + GENERATION_BITS) | generation << (1 + SLOT_BITS) | index << 1 | 1
}

/// The slot a handle value points to; `None` for a value that no handle has.
fn slot_of(token: usize) -> Option<usize> {
    (token & 1 == 1 && token >> 63 == 0).then_some((token >> 1) & ((1 << SLOT_BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    struct Apple;
    struct Pear;
    static APPLES: Noun<Apple, String> = Noun::new("apple");
    static PEARS: Noun<Pear, Vec<u8>> = Noun::new("pear");

    fn kind<T>(result: Result<T>) -> Kind {
        result.err().map(|error| error.kind()).unwrap()
    }

    #[test]
    fn a_live_handle_finds_its_object() {
        let handle = APPLES.add("russet".into()).unwrap();
        assert_eq!(*APPLES.get(handle, "apple").unwrap(), "russet");
        assert_eq!(handle.addr() & 1, 1);
        APPLES.free(handle);
    }

    #[test]
    fn freed_doubled_and_invented_handles_are_errors() {
        let handle = APPLES.add("russet".into()).unwrap();
        APPLES.free(handle);
        APPLES.free(handle);
        APPLES.free(std::ptr::null_mut());
        assert_eq!(kind(APPLES.get(handle, "apple")), Kind::InvalidHandle);
        assert_eq!(kind(APPLES.get(std::ptr::null_mut(), "apple")), Kind::NullArgument);
        let live = APPLES.add("cox".into()).unwrap();
        for invented in
            [2, 8, 0x7fff_ffff_f000, usize::MAX, live.addr() ^ 1, live.addr() ^ 1 << 50, live.addr() ^ 1 << 21, live.addr() | 1 << 63]
        {
            assert_eq!(kind(APPLES.get(std::ptr::without_provenance_mut(invented), "apple")), Kind::InvalidHandle);
            APPLES.free(std::ptr::without_provenance_mut(invented));
        }
        assert_eq!(*APPLES.get(live, "apple").unwrap(), "cox");
        APPLES.free(live);
    }

    #[test]
    fn a_slot_in_use_again_does_not_answer_to_its_old_handle() {
        let old = APPLES.add("old".into()).unwrap();
        APPLES.free(old);
        let handles: Vec<_> = (0..64).map(|n| APPLES.add(n.to_string()).unwrap()).collect();
        assert!(handles.iter().all(|handle| *handle != old));
        assert_eq!(kind(APPLES.get(old, "apple")), Kind::InvalidHandle);
        handles.into_iter().for_each(|handle| APPLES.free(handle));
    }

    #[test]
    fn a_handle_of_another_noun_is_recognised_and_not_freed() {
        let pear = PEARS.add(vec![1]).unwrap();
        let error = APPLES.get(pear.cast(), "basket").unwrap_err();
        assert_eq!((error.kind(), error.detail()), (Kind::InvalidHandle, "basket has the type pear instead of apple"));
        APPLES.free(pear.cast());
        assert!(PEARS.get(pear, "pear").is_ok());
        PEARS.free(pear);
    }

    #[test]
    fn an_object_outlives_its_handle_while_a_call_uses_it() {
        let handle = APPLES.add("russet".into()).unwrap();
        let held = APPLES.get(handle, "apple").unwrap();
        let address = handle.addr();
        std::thread::spawn(move || APPLES.free(std::ptr::without_provenance_mut(address))).join().unwrap();
        assert_eq!(kind(APPLES.get(handle, "apple")), Kind::InvalidHandle);
        assert_eq!(*held, "russet");
    }

    #[test]
    fn a_destructor_may_use_the_table() {
        struct Basket(mpsc::Sender<bool>);
        impl Drop for Basket {
            fn drop(&mut self) {
                let handle = APPLES.add("inside".into()).unwrap();
                self.0.send(APPLES.get(handle, "apple").is_ok()).unwrap();
                APPLES.free(handle);
            }
        }
        struct Opaque;
        static BASKETS: Noun<Opaque, std::sync::Mutex<Basket>> = Noun::new("basket");
        let (sender, receiver) = mpsc::channel();
        BASKETS.free(BASKETS.add(std::sync::Mutex::new(Basket(sender))).unwrap());
        assert!(receiver.recv().unwrap());
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_is_retired() {
        let mut table = Table::default();
        let entry = || Entry { noun: "apple", object: Arc::new(()) };
        let first = table.add(entry()).unwrap();
        table.slots[0].generation = (1 << GENERATION_BITS) - 1;
        assert!(table.get(first).is_none());
        let last = token(0, (1 << GENERATION_BITS) - 1);
        assert!(table.remove(last, |_| true).is_some());
        assert_eq!(slot_of(table.add(entry()).unwrap()), Some(1));
        assert!(table.get(last).is_none());
    }

    #[test]
    fn threads_that_make_and_free_never_meet_each_others_objects() {
        std::thread::scope(|scope| {
            for thread in 0..8 {
                scope.spawn(move || {
                    for n in 0..2_000 {
                        let name = format!("{thread}/{n}");
                        let handle = APPLES.add(name.clone()).unwrap();
                        assert_eq!(*APPLES.get(handle, "apple").unwrap(), name);
                        APPLES.free(handle);
                        assert!(APPLES.get(handle, "apple").is_err());
                    }
                });
            }
        });
    }
}
