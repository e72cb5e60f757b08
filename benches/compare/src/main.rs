//! Sealing and opening beside what others do with the same bytes, in one run and on one machine.
//!
//! `compare --memory seal|open --folder PATH --bytes N` does one of the two once and prints the peak memory (memory.sh).
//!
//! `compare [--bytes N] [--rounds R] [--folder PATH] [--python PATH]`. Every row is measured once per round, row after row, so that a machine that
//! is busy for a while is busy for all of them; the tables give the median, the slowest and the fastest round, by the clock and by the time that
//! processors worked for it, which others on the machine disturb less. The processors that may be used are those that the process is bound to (`taskset`); run.sh runs it on one and on two.

mod clock;
mod ours;
mod peers;
mod raw;

use std::path::PathBuf;

use clock::{Clock, Spent};

/// What the command line says.
struct Settings {
    bytes: usize,
    rounds: usize,
    folder: PathBuf,
    python: Option<PathBuf>,
    memory: Option<String>,
}

/// Something that is measured: it handles a number of bytes and says what that took.
struct Row<'a> {
    name: String,
    bytes: usize,
    run: Box<dyn FnMut() -> Option<Spent> + 'a>,
    spent: Vec<Spent>,
}

impl<'a> Row<'a> {
    /// A row that is timed from outside.
    fn timed(name: &str, bytes: usize, mut work: impl FnMut() + 'a) -> Row<'a> {
        let run = move || {
            let clock = Clock::start();
            work();
            Some(clock.stop())
        };
        Row { name: name.to_owned(), bytes, run: Box::new(run), spent: Vec::new() }
    }

    /// A row that times itself, or says that it cannot run here.
    fn own(name: &str, bytes: usize, run: impl FnMut() -> Option<Spent> + 'a) -> Row<'a> {
        Row { name: name.to_owned(), bytes, run: Box::new(run), spent: Vec::new() }
    }

    /// Gigabytes per second: slowest, median, fastest round.
    fn rates(&self, seconds: impl Fn(&Spent) -> f64) -> Option<[f64; 3]> {
        let mut rates: Vec<f64> = self.spent.iter().map(|spent| self.bytes as f64 / 1e9 / seconds(spent)).collect();
        rates.sort_by(f64::total_cmp);
        Some([*rates.first()?, *rates.get(rates.len() / 2)?, *rates.last()?])
    }
}

fn settings() -> Settings {
    let mut settings = Settings { bytes: 1 << 30, rounds: 5, folder: PathBuf::from("/dev/shm"), python: None, memory: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().expect("a value after each option");
        match word.as_str() {
            "--bytes" => settings.bytes = value.parse().expect("a number of bytes"),
            "--rounds" => settings.rounds = value.parse().expect("a number of rounds"),
            "--folder" => settings.folder = PathBuf::from(value),
            "--python" => settings.python = Some(PathBuf::from(value)),
            "--memory" => settings.memory = Some(value),
            other => panic!("unknown option {other}"),
        }
    }
    settings
}

fn main() {
    let settings = settings();
    if let Some(word) = &settings.memory {
        return ours::World::sparse(&settings.folder, settings.bytes).memory(word);
    }
    let place = settings.folder.join(format!("smp-compare-{}", std::process::id()));
    std::fs::create_dir(&place).expect("a folder for the files of the run");
    let outcome = std::panic::catch_unwind(|| measure(&settings, &place));
    std::fs::remove_dir_all(&place).expect("the folder of the run can be removed");
    if outcome.is_err() {
        std::process::exit(1);
    }
}

fn measure(settings: &Settings, place: &std::path::Path) {
    let world = ours::World::new(place, settings.bytes);
    let plain = raw::noise(64 << 20);
    let mut rows = raw::rows(&plain);
    rows.extend(ours::rows(&world));
    rows.extend(peers::rows(place, &plain, &world, settings.python.as_deref()));
    for round in 0..settings.rounds {
        for row in &mut rows {
            row.spent.extend((row.run)());
        }
        eprintln!("round {} of {}", round + 1, settings.rounds);
    }
    report(settings, &rows);
}

fn report(settings: &Settings, rows: &[Row<'_>]) {
    println!("{} processors, {} rounds, a study of {} MiB", rayon::current_num_threads(), settings.rounds, settings.bytes >> 20);
    table("GB per second of the clock", rows, |spent| spent.wall);
    table("GB per second of one processor's time", rows, |spent| spent.processor);
}

fn table(title: &str, rows: &[Row<'_>], seconds: impl Fn(&Spent) -> f64) {
    let median = |name: &str| rows.iter().find(|row| row.name == name).and_then(|row| row.rates(&seconds)).map(|rates| rates[1]);
    println!("{title:44} {:>7} {:>7} {:>7} {:>9} {:>9}", "median", "min", "max", "open is", "seal is");
    let (open, seal) = (median(ours::OPEN), median(ours::SEAL));
    for row in rows {
        let Some([slowest, middle, fastest]) = row.rates(&seconds) else {
            println!("{:44} not available here", row.name);
            continue;
        };
        let times = |of: Option<f64>| of.map_or_else(String::new, |of| format!("{:.2} x", of / middle));
        println!("{:44} {middle:7.3} {slowest:7.3} {fastest:7.3} {:>9} {:>9}", row.name, times(open), times(seal));
    }
    // One pass each of cipher, hash of the range and hash of the file over every byte, with nothing between them.
    if let (Some(cipher), Some(hash)) = (median(raw::OPEN_AWS_LC), median(raw::SHA_SHA2)) {
        let bound = 1.0 / (1.0 / cipher + 2.0 / hash);
        println!("bound of AES-256-GCM and SHA-256 twice: {bound:.3} GB/s");
        for (what, rate) in [("open", open), ("seal", seal)] {
            if let Some(rate) = rate {
                println!("{what}: {:.0} % of that bound, {:.0} % of the cipher alone", 100.0 * rate / bound, 100.0 * rate / cipher);
            }
        }
    }
}
