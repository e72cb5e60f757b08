//! Arrays and scalars in the caller's memory.
//!
//! Lengths and capacities come as `int64_t` and are checked before an address is touched. Nothing is written unless everything
//! fits. Bytes are copied, so the caller's buffer needs no alignment.

use crate::error::{Error, Kind, Result};

/// Longest array that is taken in one call, in bytes. It ends at the largest study that the limits allow by default; above it a
/// length is more likely a mistake than an image.
const MAX_BYTES_IN: u64 = 64 << 30;

/// An array that comes in.
///
/// # Safety
/// `bytes` is NULL or points to `length` readable bytes that nobody changes until the returned slice is done with.
pub(super) unsafe fn bytes<'a>(bytes: *const u8, length: i64, parameter: &str) -> Result<&'a [u8]> {
    let count = u64::try_from(length).map_err(|_| Error::new(Kind::InvalidArgument, format!("the length of {parameter} is {length}")))?;
    if count > MAX_BYTES_IN {
        return Err(Error::new(Kind::InvalidArgument, format!("{parameter} of {count} bytes; at most {MAX_BYTES_IN} are taken")));
    }
    if bytes.is_null() {
        return Err(Error::new(Kind::NullArgument, parameter.to_owned()));
    }
    let count = usize::try_from(count).map_err(|_| Error::new(Kind::InvalidArgument, parameter.to_owned()))?;
    if bytes.addr().checked_add(count).is_none() {
        return Err(Error::new(Kind::InvalidArgument, format!("{parameter} runs past the end of memory")));
    }
    // SAFETY: the address is not NULL, the caller promises `length` readable bytes, and the length is far below isize::MAX.
    Ok(unsafe { std::slice::from_raw_parts(bytes, count) })
}

/// Copies an array out if it fits; otherwise nothing is written.
///
/// # Safety
/// `out` is NULL or points to `capacity` writable elements.
pub(super) unsafe fn copy_out<T: Copy>(source: &[T], out: *mut T, capacity: i64, parameter: &str) -> Result<()> {
    let room =
        u64::try_from(capacity).map_err(|_| Error::new(Kind::InvalidArgument, format!("the capacity of {parameter} is {capacity}")))?;
    if out.is_null() {
        return Err(Error::new(Kind::NullArgument, parameter.to_owned()));
    }
    if room < count_u64(source.len()) {
        let detail = format!("{parameter} has room for {room} of {} elements", source.len());
        return Err(Error::new(Kind::BufferTooSmall, detail));
    }
    // SAFETY: the caller promises `capacity` writable elements, and the source has no more; the source is the library's own
    // memory, so the two do not overlap. Copying bytes needs no alignment of `out`.
    unsafe { std::ptr::copy_nonoverlapping(source.as_ptr().cast::<u8>(), out.cast::<u8>(), size_of_val(source)) };
    Ok(())
}

/// Writes several scalars, all or none.
///
/// # Safety
/// Each address is NULL or points to one writable value.
pub(super) unsafe fn write_all<T: Copy, const N: usize>(values: [T; N], out: [*mut T; N], parameters: [&str; N]) -> Result<()> {
    for (address, parameter) in out.iter().zip(parameters) {
        if address.is_null() {
            return Err(Error::new(Kind::NullArgument, parameter.to_owned()));
        }
    }
    for (value, address) in values.into_iter().zip(out) {
        // SAFETY: the address is not NULL, and the caller promises one writable value there.
        unsafe { address.write_unaligned(value) };
    }
    Ok(())
}

/// Writes one scalar unless the caller does not want it.
///
/// # Safety
/// As for [`write_all`].
pub(super) unsafe fn write_if_wanted<T: Copy>(value: T, out: *mut T) {
    if !out.is_null() {
        // SAFETY: the address is not NULL, and the caller promises one writable value there.
        unsafe { out.write_unaligned(value) };
    }
}

/// An element by the index that C gave.
pub(super) fn at<'a, T>(elements: &'a [T], index: i64, noun: &str) -> Result<&'a T> {
    usize::try_from(index)
        .ok()
        .and_then(|index| elements.get(index))
        .ok_or_else(|| Error::new(Kind::OutOfRange, format!("{noun} {index} of {}", elements.len())))
}

/// A number of things as C counts them.
pub(super) fn count(number: impl TryInto<i64>) -> Result<i64> {
    number.try_into().map_err(|_| Error::new(Kind::Internal, "a count does not fit into 63 bits"))
}

/// No slice is longer than `isize::MAX`, so nothing is lost.
fn count_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_checked_before_an_address_is_touched() {
        for (address, length, expected) in [
            (std::ptr::null(), 1, Kind::NullArgument),
            (std::ptr::null(), 0, Kind::NullArgument),
            ([1u8].as_ptr(), -1, Kind::InvalidArgument),
            ([1u8].as_ptr(), i64::MIN, Kind::InvalidArgument),
            ([1u8].as_ptr(), i64::MAX, Kind::InvalidArgument),
            (std::ptr::without_provenance(usize::MAX - 4), 64, Kind::InvalidArgument),
        ] {
            // SAFETY: each is refused before the address is used.
            assert_eq!(unsafe { bytes(address, length, "bytes") }.unwrap_err().kind(), expected);
        }
    }

    #[test]
    fn nothing_is_written_unless_all_fits() {
        let source = [1.0f32, 2.0, 3.0];
        let mut out = [9.0f32; 4];
        for (capacity, expected) in [(-1, Kind::InvalidArgument), (0, Kind::BufferTooSmall), (2, Kind::BufferTooSmall)] {
            // SAFETY: `out` has more room than any capacity above.
            assert_eq!(unsafe { copy_out(&source, out.as_mut_ptr(), capacity, "out") }.unwrap_err().kind(), expected);
        }
        assert_eq!(out, [9.0; 4]);
        // SAFETY: `out` has four elements.
        unsafe { copy_out(&source, out.as_mut_ptr(), 4, "out") }.unwrap();
        assert_eq!(out, [1.0, 2.0, 3.0, 9.0]);
    }

    #[test]
    fn an_unaligned_buffer_is_filled() {
        let mut raw = [0u8; 9];
        let out = raw[1..].as_mut_ptr().cast();
        // SAFETY: eight bytes lie behind the first one.
        unsafe { copy_out(&[1.5f32, -2.0], out, 2, "out") }.unwrap();
        assert_eq!(raw[1..5], 1.5f32.to_ne_bytes());
        assert_eq!(raw[5..9], (-2.0f32).to_ne_bytes());
    }

    #[test]
    fn scalars_are_written_all_or_none() {
        let (mut a, mut b) = (0i64, 0i64);
        // SAFETY: `a` is a live variable; NULL is allowed.
        let error = unsafe { write_all([1, 2], [&raw mut a, std::ptr::null_mut()], ["a", "b"]) }.unwrap_err();
        assert_eq!((error.kind(), a), (Kind::NullArgument, 0));
        // SAFETY: both are live variables.
        unsafe { write_all([1, 2], [&raw mut a, &raw mut b], ["a", "b"]) }.unwrap();
        assert_eq!((a, b), (1, 2));
    }

    #[test]
    fn an_index_outside_is_an_error() {
        assert_eq!(at(&[5, 6], 1, "label").unwrap(), &6);
        for index in [-1, 2, i64::MAX, i64::MIN] {
            assert_eq!(at(&[5, 6], index, "label").unwrap_err().kind(), Kind::OutOfRange);
        }
    }
}
