//! The arena: the one place that asks the system for memory that stays out of swap, dumps and forked children.
//!
//! A region is a few pages between two guard pages that can be neither read nor written, so running over its end is a fault and not a leak. It is
//! locked (mlock), left out of core dumps (MADV_DONTDUMP) and empty in a forked child (MADV_WIPEONFORK); what the system refuses is a fact and
//! not an error. The first unit of a region holds a mark: where the mark is gone, this is a child and the secrets are not there. Wiping is chosen over
//! unmapping (MADV_DONTFORK) because a child that frees what it inherited must not crash.
//!
//! Slots are runs of 64-byte units, first fit. A slot is overwritten before it is free again; a region without secrets is overwritten whole,
//! and given back unless it is the last. At most 64 regions are held, so secrets cannot use up what the process may lock.

use std::alloc::Layout;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::Zeroize;

/// Bytes of a unit: a cache line, and the alignment that every slot has.
const UNIT: usize = 64;
/// Usable bytes of a region, unless a page is larger. Small, because RLIMIT_MEMLOCK is 64 KiB in many containers.
const REGION: usize = 16 << 10;
/// Regions at most.
const REGIONS: usize = 64;
/// What the first bytes of a region say while the secrets in it are there.
const MARK: u64 = 0x736d_702d_6172_656e;

/// What the arena is worth: sizes, and what the system granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ArenaFacts {
    /// Regions mapped.
    pub regions: usize,
    /// Bytes in them.
    pub bytes: usize,
    /// Bytes that the system keeps out of swap.
    pub locked: usize,
    /// Secrets in the arena.
    pub secrets: usize,
    /// Secrets on the ordinary heap, because the arena could not take them. They are overwritten on drop and nothing more.
    pub on_heap: usize,
    /// Whether core dumps leave all regions out.
    pub left_out_of_dumps: bool,
    /// Whether a forked child finds all regions empty.
    pub wiped_on_fork: bool,
}

impl ArenaFacts {
    /// Whether every secret of the process is in memory that the system keeps out of swap.
    pub fn is_locked(&self) -> bool {
        self.on_heap == 0 && self.locked == self.bytes
    }
}

/// The facts of the arena; it does not know of the heap.
pub(super) fn facts() -> ArenaFacts {
    let arena = arena();
    let ours = || arena.regions.iter().filter(|region| region.is_ours());
    ArenaFacts {
        regions: ours().count(),
        bytes: ours().map(|region| region.size).sum(),
        locked: ours().filter(|region| region.granted.locked).map(|region| region.size).sum(),
        secrets: ours().map(|region| region.live).sum(),
        on_heap: 0,
        left_out_of_dumps: ours().all(|region| region.granted.left_out_of_dumps),
        wiped_on_fork: ours().all(|region| region.granted.wiped_on_fork),
    }
}

/// A value in the arena. Owns it as a `Box` would.
pub struct Slot<E: ?Sized + Zeroize> {
    value: NonNull<E>,
    block: Block,
    owns: PhantomData<E>,
}

// SAFETY: a slot owns its value and shares it as a `Box` does; the block is addresses only.
unsafe impl<E: ?Sized + Zeroize + Send> Send for Slot<E> {}
// SAFETY: as for Send; `value` hands out shared references only.
unsafe impl<E: ?Sized + Zeroize + Sync> Sync for Slot<E> {}

impl<E: Zeroize> Slot<E> {
    /// Moves a value into the arena and overwrites the copy that came in; returns the value if there is no room for it.
    pub(super) fn new(value: E) -> Result<Slot<E>, E> {
        let Some(block) = arena().allocate(Layout::new::<E>()) else { return Err(value) };
        let place = block.start.cast::<E>();
        let mut value = MaybeUninit::new(value);
        // SAFETY: the block has the size and alignment of E, is writable, and belongs to nobody else. From here on the value lives there.
        unsafe { place.as_ptr().copy_from_nonoverlapping(value.as_ptr(), 1) };
        value.zeroize();
        Ok(Slot { value: place, block, owns: PhantomData })
    }
}

impl Slot<[u8]> {
    /// A copy of bytes in the arena.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Slot<[u8]>> {
        let block = copy(bytes)?;
        Some(Slot { value: NonNull::slice_from_raw_parts(block.start, bytes.len()), block, owns: PhantomData })
    }
}

impl Slot<str> {
    /// A copy of a text in the arena.
    pub(super) fn of_text(text: &str) -> Option<Slot<str>> {
        let block = copy(text.as_bytes())?;
        let bytes = NonNull::slice_from_raw_parts(block.start, text.len());
        // SAFETY: the address comes from a NonNull. The bytes are those of a text, and zeros after a fork are UTF-8 as well.
        let value = unsafe { NonNull::new_unchecked(bytes.as_ptr() as *mut str) };
        Some(Slot { value, block, owns: PhantomData })
    }
}

fn copy(bytes: &[u8]) -> Option<Block> {
    let block = arena().allocate(Layout::for_value(bytes))?;
    // SAFETY: the block has the length of the bytes, is writable, and belongs to nobody else.
    unsafe { block.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    Some(block)
}

impl<E: ?Sized + Zeroize> Slot<E> {
    pub(super) fn value(&self) -> &E {
        self.block.insist();
        // SAFETY: the value was moved here and lives until the slot is dropped; `insist` proved that no fork wiped it.
        unsafe { self.value.as_ref() }
    }

    pub(super) fn value_mut(&mut self) -> &mut E {
        self.block.insist();
        // SAFETY: as for `value`; the slot is borrowed mutably, so nobody else sees the value.
        unsafe { self.value.as_mut() }
    }

    pub(super) fn is_locked(&self) -> bool {
        self.block.locked && self.block.is_there()
    }
}

impl<E: ?Sized + Zeroize> Drop for Slot<E> {
    fn drop(&mut self) {
        // In a child the bytes are zeros, which need not be a value of E: what it owned on the heap is left to the end of the child.
        if self.block.is_there() {
            self.value_mut().zeroize();
            // SAFETY: the value is there, is dropped here only, and is not used again.
            unsafe { self.value.drop_in_place() };
        }
        arena().release(&self.block);
    }
}

/// A run of units of one region.
struct Block {
    start: NonNull<u8>,
    units: usize,
    /// Base of the region, which is where its mark is.
    region: NonNull<u8>,
    locked: bool,
}

impl Block {
    fn is_there(&self) -> bool {
        is_marked(self.region)
    }

    /// Stops whoever asks for a secret where there is none: a key of zeros would encrypt and pseudonymise without complaint.
    fn insist(&self) {
        assert!(self.is_there(), "a secret was made before this process was forked, and a child does not have it");
    }
}

fn is_marked(region: NonNull<u8>) -> bool {
    let mark = region.cast::<AtomicU64>();
    // SAFETY: a region is mapped and readable while a block of it, or its entry in the arena, exists; its base is aligned to a page.
    let mark = unsafe { mark.as_ref() };
    mark.load(Ordering::Relaxed) == MARK
}

/// What the system granted for a region.
#[derive(Clone, Copy)]
struct Granted {
    locked: bool,
    left_out_of_dumps: bool,
    wiped_on_fork: bool,
}

struct Region {
    base: NonNull<u8>,
    /// Usable bytes: whole pages.
    size: usize,
    /// Bytes of the guard on either side: one page.
    guard: usize,
    used: Vec<bool>,
    /// Secrets in it.
    live: usize,
    granted: Granted,
}

// SAFETY: a region is a mapping of the process, not of a thread; it is reached under the lock of the arena only.
unsafe impl Send for Region {}

struct Arena {
    regions: Vec<Region>,
}

static ARENA: Mutex<Arena> = Mutex::new(Arena { regions: Vec::new() });

fn arena() -> MutexGuard<'static, Arena> {
    ARENA.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Arena {
    /// Room for a value, or none: for values of no size, for too large or too strictly aligned ones, and when the bound or the system says no.
    fn allocate(&mut self, layout: Layout) -> Option<Block> {
        if layout.size() == 0 || layout.size() > REGION - UNIT || layout.align() > REGION {
            return None;
        }
        // Regions from before a fork are not locked in the child, and stay as they are.
        let found = self.regions.iter_mut().filter(|region| region.is_ours()).find_map(|region| region.take(layout));
        if found.is_some() || self.regions.len() >= REGIONS {
            return found;
        }
        self.regions.push(Region::map()?);
        self.regions.last_mut()?.take(layout)
    }

    fn release(&mut self, block: &Block) {
        let Some(position) = self.regions.iter().position(|region| region.base == block.region) else { return };
        let Some(region) = self.regions.get_mut(position) else { return };
        region.give_back(block);
        if region.live == 0 {
            region.wipe();
            if self.regions.len() > 1 {
                drop(self.regions.swap_remove(position));
            }
        }
    }
}

impl Region {
    fn map() -> Option<Region> {
        let page = system::page()?;
        let size = REGION.next_multiple_of(page);
        let base = system::map_guarded(size, page)?;
        // The mark is written after the advice: the wiping on fork holds for everything from the first byte on.
        let granted = Granted {
            locked: system::lock(base, size),
            left_out_of_dumps: system::leave_out_of_dumps(base, size),
            wiped_on_fork: system::wipe_on_fork(base, size),
        };
        // SAFETY: the region is mapped, writable and aligned to a page, and nobody else knows of it yet.
        unsafe { base.cast::<u64>().write(MARK) };
        let mut used = vec![false; size / UNIT];
        if let Some(first) = used.first_mut() {
            *first = true;
        }
        Some(Region { base, size, guard: page, used, live: 0, granted })
    }

    fn is_ours(&self) -> bool {
        is_marked(self.base)
    }

    /// First fit at the alignment of the value.
    fn take(&mut self, layout: Layout) -> Option<Block> {
        let units = layout.size().div_ceil(UNIT);
        let step = layout.align().div_ceil(UNIT);
        let fits = |first: &usize| self.used.get(*first..first + units).is_some_and(|run| run.iter().all(|used| !used));
        let first = (0..self.used.len()).step_by(step).find(fits)?;
        self.used.get_mut(first..first + units)?.fill(true);
        self.live += 1;
        // SAFETY: `first` is a unit of the region, so the address lies inside of the mapping.
        let start = unsafe { self.base.add(first * UNIT) };
        Some(Block { start, units, region: self.base, locked: self.granted.locked })
    }

    fn give_back(&mut self, block: &Block) {
        wipe(block.start, block.units * UNIT);
        let first = (block.start.as_ptr().addr() - self.base.as_ptr().addr()) / UNIT;
        if let Some(run) = self.used.get_mut(first..first + block.units) {
            run.fill(false);
        }
        self.live = self.live.saturating_sub(1);
    }

    /// Overwrites everything behind the mark.
    fn wipe(&mut self) {
        // SAFETY: the second unit of the region lies inside of the mapping.
        let start = unsafe { self.base.add(UNIT) };
        wipe(start, self.size - UNIT);
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        system::unmap(self.base, self.size, self.guard);
    }
}

/// Overwrites memory of a region that holds no value.
fn wipe(start: NonNull<u8>, length: usize) {
    let bytes = NonNull::slice_from_raw_parts(start.cast::<MaybeUninit<u8>>(), length);
    // SAFETY: callers pass a part of a mapped region in which no value lives, under the lock of the arena; any byte is a MaybeUninit.
    let bytes = unsafe { &mut *bytes.as_ptr() };
    bytes.zeroize();
}

/// The system calls.
mod system {
    use std::ptr::NonNull;

    /// Bytes of a page.
    pub(super) fn page() -> Option<usize> {
        // SAFETY: sysconf takes a number and no address.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(page).ok().filter(|page| page.is_power_of_two())
    }

    /// Fresh zeroed pages that can be read and written, between two guards that cannot.
    pub(super) fn map_guarded(size: usize, guard: usize) -> Option<NonNull<u8>> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping wherever the system likes; it replaces none.
        let mapped = unsafe { libc::mmap(std::ptr::null_mut(), size + 2 * guard, libc::PROT_NONE, flags, -1, 0) };
        if mapped == libc::MAP_FAILED {
            return None;
        }
        // SAFETY: the mapping is longer than one guard.
        let base = NonNull::new(unsafe { mapped.cast::<u8>().add(guard) })?;
        // SAFETY: `base..base + size` lies inside of the new mapping, which nobody else knows of.
        let opened = unsafe { libc::mprotect(base.as_ptr().cast(), size, libc::PROT_READ | libc::PROT_WRITE) };
        if opened != 0 {
            unmap(base, size, guard);
            return None;
        }
        Some(base)
    }

    /// Best effort: a container without CAP_IPC_LOCK or with a low RLIMIT_MEMLOCK refuses.
    pub(super) fn lock(base: NonNull<u8>, size: usize) -> bool {
        // SAFETY: mlock changes no memory; the range is mapped.
        unsafe { libc::mlock(base.as_ptr().cast(), size) == 0 }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn leave_out_of_dumps(base: NonNull<u8>, size: usize) -> bool {
        // SAFETY: this advice changes no memory; the range is mapped.
        unsafe { libc::madvise(base.as_ptr().cast(), size, libc::MADV_DONTDUMP) == 0 }
    }

    #[cfg(target_os = "linux")]
    pub(super) fn wipe_on_fork(base: NonNull<u8>, size: usize) -> bool {
        // SAFETY: this advice changes no memory of this process; the range is mapped, private and anonymous (madvise(2)).
        unsafe { libc::madvise(base.as_ptr().cast(), size, libc::MADV_WIPEONFORK) == 0 }
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn leave_out_of_dumps(_base: NonNull<u8>, _size: usize) -> bool {
        false
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn wipe_on_fork(_base: NonNull<u8>, _size: usize) -> bool {
        false
    }

    /// Gives a region and its guards back.
    pub(super) fn unmap(base: NonNull<u8>, size: usize, guard: usize) {
        // SAFETY: the guard before the base is the beginning of the mapping.
        let start = unsafe { base.as_ptr().sub(guard) };
        // SAFETY: exactly what `map_guarded` mapped; no slot of it is left, or it was never handed out.
        unsafe { libc::munmap(start.cast(), size + 2 * guard) };
    }
}

/// Whether an address lies in a region.
#[cfg(test)]
pub(super) fn holds(address: *const u8) -> bool {
    let address = address.addr();
    arena().regions.iter().any(|region| (region.base.as_ptr().addr()..region.base.as_ptr().addr() + region.size).contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(slot: &Slot<[u8]>) -> usize {
        slot.value().as_ptr().addr()
    }

    /// Bytes of the arena as they are, whether a secret lives there or not; none where the region was given back.
    fn peek(address: usize, length: usize) -> Option<Vec<u8>> {
        let arena = arena();
        let offset = |region: &&Region| address.checked_sub(region.base.as_ptr().addr()).filter(|offset| offset + length <= region.size);
        let region = arena.regions.iter().find(|region| offset(region).is_some())?;
        // SAFETY: inside of the region by the line above.
        let start = unsafe { region.base.as_ptr().add(offset(&region)?) };
        // SAFETY: mapped and initialised, and it stays so under the lock.
        let bytes = unsafe { std::slice::from_raw_parts(start, length) };
        Some(bytes.to_vec())
    }

    /// The `VmFlags` of the mapping that an address lies in, from proc(5) smaps.
    fn flags(address: usize) -> Vec<String> {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let range = range.and_then(|(from, to)| usize::from_str_radix(from, 16).ok().zip(usize::from_str_radix(to, 16).ok()));
            if let Some((from, to)) = range {
                inside = (from..to).contains(&address);
            }
            if inside && let Some(flags) = line.strip_prefix("VmFlags:") {
                return flags.split_whitespace().map(str::to_owned).collect();
            }
        }
        panic!("no mapping holds the address");
    }

    #[test]
    fn the_kernel_confirms_what_the_facts_say() {
        let secret = Slot::of_bytes(&[1; 32]).unwrap();
        let (flags_inside, facts) = (flags(address(&secret)), facts());
        let has = |flag: &str| flags_inside.iter().any(|found| found == flag);
        assert_eq!(has("lo"), secret.is_locked(), "{flags_inside:?}");
        if !has("lo") {
            eprintln!("SKIPPED: the system locks no memory here");
        }
        assert!(has("dd") && has("wf"), "{flags_inside:?}");
        assert!(facts.left_out_of_dumps && facts.wiped_on_fork, "{facts:?}");
        assert!(
            facts.regions >= 1 && facts.bytes == facts.regions * REGION.next_multiple_of(system::page().unwrap()) && facts.secrets >= 1
        );
    }

    #[test]
    fn the_neighbours_of_a_region_can_be_neither_read_nor_written() {
        let secret = Slot::of_bytes(&[1; 32]).unwrap();
        let (base, page) = (secret.block.region.as_ptr().addr(), system::page().unwrap());
        for neighbour in [base - page, base - 1, base + REGION.next_multiple_of(page)] {
            let flags = flags(neighbour);
            assert!(!flags.iter().any(|flag| flag == "rd" || flag == "wr"), "{flags:?}");
        }
    }

    #[test]
    fn nothing_is_left_of_a_dropped_secret() {
        // The pattern is no other test's.
        let secret = Slot::of_bytes(&[0xC3; 4000]).unwrap();
        let place = address(&secret);
        assert_eq!(peek(place, 4000).as_deref(), Some([0xC3; 4000].as_slice()));
        drop(secret);
        // Another test may have taken the place, or the region is gone and its pages with it.
        assert!(!peek(place, 4000).unwrap_or_default().windows(16).any(|run| run == [0xC3; 16]));
    }

    #[test]
    fn a_slot_is_empty_when_it_is_given_out_again() {
        let mut arena = Arena { regions: Vec::new() };
        let layout = Layout::new::<[u8; 200]>();
        let block = arena.allocate(layout).unwrap();
        let second = arena.allocate(layout).unwrap();
        // SAFETY: the block has 200 bytes and is this test's own.
        unsafe { block.start.as_ptr().write_bytes(0xAB, 200) };
        arena.release(&block);
        let again = arena.allocate(layout).unwrap();
        assert_eq!(again.start, block.start);
        // SAFETY: as above; a slot is initialised, with zeros.
        let bytes = unsafe { std::slice::from_raw_parts(again.start.as_ptr(), 200) };
        assert_eq!(bytes, [0; 200]);
        arena.release(&again);
        arena.release(&second);
        assert_eq!(arena.regions.len(), 1, "the last region is kept");
        assert_eq!(arena.regions[0].live, 0);
    }

    #[test]
    fn the_arena_grows_to_its_bound_and_shrinks_again() {
        let mut arena = Arena { regions: Vec::new() };
        let layout = Layout::new::<[u8; 10_000]>();
        let blocks: Vec<Block> = std::iter::from_fn(|| arena.allocate(layout)).collect();
        assert_eq!(arena.regions.len(), REGIONS);
        assert!(blocks.len() >= REGIONS);
        blocks.iter().for_each(|block| arena.release(block));
        assert_eq!(arena.regions.len(), 1);
    }

    #[test]
    fn slots_are_aligned_as_their_values_ask() {
        let mut arena = Arena { regions: Vec::new() };
        for align in [1, 8, 64, 128, 256, 4096] {
            for size in [1, 63, 65, 1000] {
                let layout = Layout::from_size_align(size, align).unwrap();
                let block = arena.allocate(layout).unwrap();
                assert!(block.start.as_ptr().addr().is_multiple_of(align.max(UNIT)), "{align}");
            }
        }
        assert!(arena.allocate(Layout::from_size_align(1, 2 * REGION).unwrap()).is_none());
        assert!(arena.allocate(Layout::from_size_align(REGION, 1).unwrap()).is_none());
        assert!(arena.allocate(Layout::from_size_align(0, 1).unwrap()).is_none());
    }

    #[test]
    fn a_forked_child_has_no_secrets_and_the_parent_keeps_its_own() {
        let secret = Slot::of_bytes(&[0x5A; 64]).unwrap();
        let bytes = secret.value().as_ptr();
        // SAFETY: the child reads memory and leaves by _exit: it takes no lock, allocates nothing and runs no destructor.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let mut seen = 0;
            for position in 0..64 {
                // SAFETY: `position` is below the 64 bytes of the secret.
                let byte = unsafe { bytes.add(position) };
                // SAFETY: the child's own copy of the mapping, readable as in the parent.
                seen |= unsafe { byte.read_volatile() };
            }
            let verdict = if seen == 0 && !secret.block.is_there() { 0 } else { 1 };
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(verdict) };
        }
        assert!(child > 0);
        let mut status = 0;
        // SAFETY: waits for the child just forked and writes one integer.
        let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
        assert_eq!((waited, status), (child, 0));
        assert_eq!(secret.value(), [0x5A; 64]);
    }

    #[test]
    fn a_secret_that_is_not_there_is_not_exposed_and_may_be_freed() {
        let mut lone = Arena { regions: Vec::new() };
        let block = lone.allocate(Layout::new::<[u8; 32]>()).unwrap();
        // SAFETY: the mark of a region that only this test knows; this is what a fork does to it.
        unsafe { block.region.cast::<u64>().write(0) };
        assert!(std::panic::catch_unwind(|| block.insist()).is_err());
        assert!(lone.allocate(Layout::new::<[u8; 32]>()).is_some_and(|fresh| fresh.region != block.region));
        lone.release(&block);
        assert_eq!(lone.regions.len(), 1);
    }
}
