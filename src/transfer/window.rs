//! How many ranges are in flight: more while that helps, fewer when the store has had enough.
//!
//! A window begins small, because most stores and most lines are full with a few ranges and every range in flight is held in memory. Each
//! round (as many ranges as the window is wide) is timed. While a round moves clearly more bytes per second than the best before it, the
//! window doubles; a round that does not ends the growth and takes the last step back. Now and then one more range is tried, since lines
//! change. A store that asks for a pause or drops requests gets half as many.

use std::time::{Duration, Instant};

/// Ranges in flight at the start.
const FIRST: usize = 2;
/// A round must be this much faster than the best before it to be worth its memory.
const GAIN: f64 = 1.1;
/// Rounds of steady work after which one more range is tried.
const PATIENCE: usize = 8;

/// The window of one fetch.
pub(super) struct Window {
    most: usize,
    width: usize,
    phase: Phase,
    best: f64,
    round_began: Instant,
    round_bytes: u64,
    round_ranges: usize,
    refused_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Doubling.
    Growing,
    /// Rounds left before the next trial.
    Steady(usize),
    /// One wider than what was steady.
    Trying,
}

impl Window {
    /// A window of at most this many ranges.
    pub fn new(most: usize, now: Instant) -> Window {
        let width = FIRST.min(most).max(1);
        Window {
            most: most.max(1),
            width,
            phase: Phase::Growing,
            best: 0.0,
            round_began: now,
            round_bytes: 0,
            round_ranges: 0,
            refused_at: None,
        }
    }

    /// Ranges that may be in flight now.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A range came from the store.
    pub fn arrived(&mut self, bytes: usize, now: Instant) {
        self.round_bytes += bytes as u64;
        self.round_ranges += 1;
        if self.round_ranges < self.width {
            return;
        }
        let seconds = now.saturating_duration_since(self.round_began).as_secs_f64();
        let rate = self.round_bytes as f64 / seconds.max(1e-6);
        (self.round_began, self.round_bytes, self.round_ranges) = (now, 0, 0);
        let is_faster = rate > self.best * GAIN;
        (self.width, self.phase) = match self.phase {
            Phase::Growing if is_faster && self.width < self.most => ((self.width * 2).min(self.most), Phase::Growing),
            Phase::Growing if is_faster => (self.width, Phase::Steady(PATIENCE)),
            // The last doubling brought nothing.
            Phase::Growing => ((self.width / 2).max(FIRST.min(self.most)), Phase::Steady(PATIENCE)),
            Phase::Trying if is_faster => (self.width, Phase::Steady(PATIENCE)),
            Phase::Trying => (self.width - 1, Phase::Steady(PATIENCE)),
            Phase::Steady(0) if self.width < self.most => (self.width + 1, Phase::Trying),
            Phase::Steady(rounds) => (self.width, Phase::Steady(rounds.saturating_sub(1))),
        };
        // What was once possible is forgotten slowly, or a line that became slow would never be tried again.
        self.best = if rate > self.best { rate } else { self.best * 0.9 + rate * 0.1 };
    }

    /// The store asked for a pause, dropped a request or let it hang. Requests that fail together count once.
    pub fn refused(&mut self, now: Instant) {
        let together = self.refused_at.is_some_and(|at| now.saturating_duration_since(at) < Duration::from_secs(1));
        if !together {
            self.width = (self.width / 2).max(1);
            self.phase = Phase::Steady(PATIENCE);
            self.refused_at = Some(now);
            (self.round_began, self.round_bytes, self.round_ranges) = (now, 0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that gives each range in flight `per_range` bytes per second, up to `line` in all; a round's ranges arrive together.
    fn settle(most: usize, per_range: f64, line: f64, rounds: usize) -> Vec<usize> {
        let mut now = Instant::now();
        let mut window = Window::new(most, now);
        let mut widths = Vec::new();
        for _ in 0..rounds {
            let width = window.width();
            widths.push(width);
            let rate = (width as f64 * per_range).min(line);
            now += Duration::from_secs_f64(width as f64 * 1e6 / rate);
            for _ in 0..width {
                window.arrived(1_000_000, now);
            }
        }
        widths
    }

    #[test]
    fn it_grows_while_that_brings_more() {
        // A long line: every range in flight adds its own rate.
        assert_eq!(settle(16, 1e6, 1e9, 5), [2, 4, 8, 16, 16]);
        assert_eq!(settle(6, 1e6, 1e9, 4), [2, 4, 6, 6]);
    }

    #[test]
    fn it_stays_small_where_a_few_ranges_fill_the_line() {
        let widths = settle(16, 1e6, 2e6, 100);
        assert_eq!(&widths[..3], [2, 4, 2]);
        assert!(widths.iter().skip(2).all(|width| (2..=3).contains(width)), "{widths:?}");
        assert!(widths.iter().skip(2).any(|width| *width == 3), "one more is tried now and then");
    }

    #[test]
    fn it_is_halved_once_when_a_store_has_had_enough() {
        let start = Instant::now();
        let mut window = Window::new(8, start);
        for round in 1..=3 {
            for _ in 0..window.width() {
                window.arrived(1_000_000, start + Duration::from_secs(round));
            }
        }
        assert_eq!(window.width(), 8);
        for _ in 0..8 {
            window.refused(start + Duration::from_secs(9));
        }
        assert_eq!(window.width(), 4);
        for second in [11, 13, 15, 17] {
            window.refused(start + Duration::from_secs(second));
        }
        assert_eq!(window.width(), 1, "never none");
    }

    #[test]
    fn one_range_is_one_range() {
        assert_eq!(settle(1, 1e6, 1e9, 30), [1; 30]);
    }
}
