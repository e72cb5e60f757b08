//! `smp`: the library's main jobs at the command line. A thin layer over the public Rust API; every command is one or two calls of it.

mod arguments;
mod commands;
mod output;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = arguments::Arguments::parse();
    match commands::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("smp: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("     {hint}");
            }
            eprintln!("     ({}, stage {})", error.kind().name(), error.stage().name());
            ExitCode::FAILURE
        }
    }
}
