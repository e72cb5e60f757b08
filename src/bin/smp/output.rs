//! What the commands print. A reader that has seen enough and goes away (`smp keys import … | head -n 1`) is no failure of a command whose work
//! is done: the rest of what it would have said is dropped, and the status stays that of the work.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write};

use smp::{Error, Kind, Result};

/// Prints a line on the standard output.
pub fn line(text: Arguments<'_>) -> Result<()> {
    write(format_args!("{text}\n"))
}

/// Prints text as it is, which ends its own lines.
pub fn text(text: Arguments<'_>) -> Result<()> {
    write(text)
}

fn write(text: Arguments<'_>) -> Result<()> {
    let mut output = std::io::stdout().lock();
    // Flushed here, because what the runtime flushes at the end of the process it flushes in silence: a full disk would go unnoticed.
    match output.write_fmt(text).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|_| Error::new(Kind::OutputUnwritable, "the standard output")),
    }
}

/// Prints a line, as `println!` does, without its panic.
macro_rules! outln {
    ($($argument:tt)*) => { $crate::output::line(format_args!($($argument)*)) };
}

/// Prints text, as `print!` does, without its panic.
macro_rules! out {
    ($($argument:tt)*) => { $crate::output::text(format_args!($($argument)*)) };
}

pub(crate) use {out, outln};
