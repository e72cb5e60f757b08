//! Large arrays: refused instead of ending the process, and in large pages where the system has them.
//!
//! The first touch of every page costs a fault, and a volume of 300 MiB has 77,000 pages of 4 KiB but 150 of 2 MiB. Linux gives large ones to
//! whoever asks (`transparent_hugepage = madvise`, the default of Debian and Ubuntu); elsewhere nothing changes.

/// Arrays below this are not worth a call to the system.
const WORTH_ADVICE: usize = 4 << 20;

/// So many equal values, or `None` where memory does not suffice.
pub(crate) fn filled<T: Clone>(count: usize, value: T) -> Option<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(count).ok()?;
    if count.saturating_mul(size_of::<T>()) >= WORTH_ADVICE {
        prefer_large_pages(values.spare_capacity_mut().as_ptr_range());
    }
    values.resize(count, value);
    Some(values)
}

/// Zeros, or `None` where memory does not suffice. They come untouched from the system, so that the threads that fill them take the faults, each its own.
pub(crate) fn zeros(count: usize) -> Option<Vec<f32>> {
    // Asked for once before: `vec!` ends the process where it fails.
    Vec::<f32>::new().try_reserve_exact(count).ok()?;
    let values = vec![0.0f32; count];
    if count.saturating_mul(size_of::<f32>()) >= WORTH_ADVICE {
        prefer_large_pages(values.as_ptr_range());
    }
    Some(values)
}

/// Asks for large pages in a range of addresses. An answer is not waited for: it is a matter of speed alone.
#[allow(unsafe_code)]
fn prefer_large_pages<T>(range: std::ops::Range<*const T>) {
    #[cfg(target_os = "linux")]
    {
        // Whole small pages within the range; the system cuts large ones out of them itself.
        const PAGE: usize = 64 << 10;
        let (start, end) = (range.start.addr().next_multiple_of(PAGE), range.end.addr() / PAGE * PAGE);
        if start < end {
            let base = range.start.with_addr(start).cast_mut().cast();
            // SAFETY: the range lies in one live allocation; MADV_HUGEPAGE changes neither its contents nor its protection (madvise(2)).
            let _ = unsafe { libc::madvise(base, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = range;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_of_any_size_hold_what_they_were_filled_with() {
        for count in [0, 1, 1000, (4 << 20) / 4, 3_000_001] {
            assert!(zeros(count).unwrap().iter().all(|value| *value == 0.0));
            let ones = filled(count, 1.5f32).unwrap();
            assert!(ones.len() == count && ones.iter().all(|value| *value == 1.5));
            assert!(filled(count, 7u8).unwrap().iter().all(|value| *value == 7));
        }
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert!(zeros(usize::MAX / 8).is_none() && filled(usize::MAX / 2, 0u8).is_none());
    }
}
