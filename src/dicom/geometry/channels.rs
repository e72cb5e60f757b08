//! Several volumes on one grid, told apart by what their headers say: time points, echoes, b-values.
//!
//! A dynamic, diffusion or multi-echo series has as many slices at each position as it has volumes. Which slice belongs to which volume is read
//! from attributes whose values recur at every position ([`EXACT`]), and where those leave a choice from the order of times and acquisitions
//! at each position ([`RANKED`]). Instance numbers and times of storage are not asked: a series that was sent twice differs in them, and would become a
//! volume of two channels.
//!
//! Channels are sorted by their marks in the order of the lists below, the first changing slowest.

use std::cmp::Ordering;

/// Attributes that recur at every position, in the order in which they sort the channels, with the names that results give them.
pub(in crate::dicom) const EXACT: [&str; 9] =
    ["image_type", "kvp", "echo_time_ms", "inversion_time_ms", "flip_angle_degrees", "b_value", "direction", "phase_percent", "time"];

/// Attributes of which only the order at each position counts: two-dimensional sequences scan one position after the other.
pub(in crate::dicom) const RANKED: [&str; 5] = ["trigger", "acquisition", "acquired", "reference", "referenced"];

/// The name of a channel's place in a [`RANKED`] order.
const RANK: &str = "time";

/// What a header says of the volume that a slice belongs to.
#[derive(Clone, Default)]
pub(in crate::dicom) struct Marks {
    /// In the order of [`EXACT`].
    pub(in crate::dicom) exact: [Option<Value>; EXACT.len()],
    /// In the order of [`RANKED`].
    pub(in crate::dicom) ranked: [Option<f64>; RANKED.len()],
    /// Instance number or frame number: sorts directions as they were scanned.
    pub(in crate::dicom) number: f64,
}

/// A value that recurs at every position.
#[derive(Clone, PartialEq, Debug)]
pub(in crate::dicom) enum Value {
    Number(f64),
    /// A direction, compared as written and sorted as scanned.
    Vector([f64; 3]),
    /// The components of an image type.
    Words(Vec<String>),
}

/// One volume of several on a grid.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channel {
    /// What tells it from the others, as name and value; nothing where there is one.
    ///
    /// `image_type` (a word where the standard has one, else a number from 1), `kvp`, `echo_time_ms`, `inversion_time_ms`,
    /// `flip_angle_degrees`, `b_value` (s/mm2), `direction` (a number from 1, in the order of acquisition; 0 for none), `phase_percent` (of
    /// the cardiac cycle), `time` (a number from 1), `colour` (`red`, `green`, `blue`).
    pub marks: Vec<(&'static str, Mark)>,
}

/// The value of a mark.
#[derive(Clone, Debug, PartialEq)]
pub enum Mark {
    /// A number.
    Number(f64),
    /// A word of a closed list.
    Word(&'static str),
}

impl Value {
    fn compare(&self, other: &Value) -> Ordering {
        match (self, other) {
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Words(a), Value::Words(b)) => a.cmp(b),
            (Value::Vector(a), Value::Vector(b)) => {
                a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
            }
            // Kinds are fixed per attribute.
            _ => Ordering::Equal,
        }
    }
}

/// Nothing comes before something.
fn compare(a: Option<&Value>, b: Option<&Value>) -> Ordering {
    match (a, b) {
        (Some(a), Some(b)) => a.compare(b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    }
}

/// Sorts the slices at each position into volumes. Every position holds the same number of slices, at least two; answers the channels, each with its
/// slice at every position, or nothing where the headers do not tell the slices apart.
pub(super) fn tell_apart(positions: &[Vec<usize>], marks: &[Marks]) -> Option<Vec<(Channel, Vec<usize>)>> {
    let first = positions.first()?;
    let of = |slice: usize| marks.get(slice);
    let mut keys: Vec<usize> = Vec::new();
    // Slices of a position, by their values of the keys so far.
    let by_keys = |keys: &[usize], a: usize, b: usize| {
        let (Some(a), Some(b)) = (of(a), of(b)) else { return Ordering::Equal };
        keys.iter()
            .map(|key| compare(a.exact[*key].as_ref(), b.exact[*key].as_ref()))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    let distinct = |keys: &[usize]| {
        let mut sorted = first.clone();
        sorted.sort_by(|a, b| by_keys(keys, *a, *b));
        1 + sorted.windows(2).filter(|pair| by_keys(keys, pair[0], pair[1]).is_ne()).count()
    };
    for key in 0..EXACT.len() {
        let with: Vec<usize> = keys.iter().copied().chain([key]).collect();
        if distinct(&with) > distinct(&keys) && recurs(positions, &|a, b| by_keys(&with, a, b)) {
            keys = with;
        }
    }
    let groups = distinct(&keys);
    let rank = match groups == first.len() {
        true => None,
        // Groups of equal marks are sorted by the first order that tells all of their members apart, at every position.
        false => Some((0..RANKED.len()).find(|rank| {
            positions.iter().all(|position| {
                let mut sorted = position.clone();
                sorted.sort_by(|a, b| by_keys(&keys, *a, *b).then(by_rank(of(*a), of(*b), *rank)));
                position.iter().all(|slice| of(*slice).is_some_and(|marks| marks.ranked[*rank].is_some()))
                    && sorted.windows(2).all(|pair| by_keys(&keys, pair[0], pair[1]).then(by_rank(of(pair[0]), of(pair[1]), *rank)).is_ne())
            })
        })?),
    };
    let direction = EXACT.iter().position(|name| *name == "direction");
    let sorted: Vec<Vec<usize>> = positions
        .iter()
        .map(|position| {
            let mut sorted = position.clone();
            sorted.sort_by(|a, b| {
                let order = by_keys(&keys, *a, *b);
                rank.map_or(order, |rank| order.then(by_rank(of(*a), of(*b), rank)))
            });
            sorted
        })
        .collect();
    let mut channels: Vec<(Channel, Vec<usize>)> = (0..first.len())
        .map(|channel| {
            let slices: Vec<usize> = sorted.iter().filter_map(|position| position.get(channel).copied()).collect();
            (Channel::default(), slices)
        })
        .collect();
    // Directions have no order of their own but that of acquisition, which is the same at every position.
    if let Some(direction) = direction.filter(|direction| keys.contains(direction)) {
        let (before, after): (Vec<usize>, Vec<usize>) = keys.iter().partition(|key| **key < direction);
        channels.sort_by(|(_, a), (_, b)| {
            let (Some(a), Some(b)) = (a.first().copied(), b.first().copied()) else { return Ordering::Equal };
            let number = |slice: usize| of(slice).map_or(0.0, |marks| marks.number);
            let same = by_keys(&[direction], a, b);
            let scanned = if same.is_eq() { Ordering::Equal } else { number(a).total_cmp(&number(b)) };
            let after: Vec<usize> = after.iter().copied().filter(|key| *key != direction).collect();
            by_keys(&before, a, b)
                .then(scanned)
                .then(by_keys(&after, a, b))
                .then(rank.map_or(Ordering::Equal, |rank| by_rank(of(a), of(b), rank)))
        });
    }
    name(&mut channels, &keys, rank.is_some(), marks);
    Some(channels)
}

/// Whether every position has the same values as the first, as often.
fn recurs(positions: &[Vec<usize>], compare: &dyn Fn(usize, usize) -> Ordering) -> bool {
    let Some(first) = positions.first() else { return false };
    let sort = |slices: &[usize]| {
        let mut sorted = slices.to_vec();
        sorted.sort_by(|a, b| compare(*a, *b));
        sorted
    };
    let first = sort(first);
    positions.iter().all(|position| sort(position).iter().zip(&first).all(|(a, b)| compare(*a, *b).is_eq()))
}

fn by_rank(a: Option<&Marks>, b: Option<&Marks>, rank: usize) -> Ordering {
    match (a.and_then(|marks| marks.ranked[rank]), b.and_then(|marks| marks.ranked[rank])) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        _ => Ordering::Equal,
    }
}

/// Writes what tells the channels apart into them.
fn name(channels: &mut [(Channel, Vec<usize>)], keys: &[usize], is_ranked: bool, marks: &[Marks]) {
    let value =
        |slices: &[usize], key: usize| slices.first().and_then(|slice| marks.get(*slice)).and_then(|marks| marks.exact[key].clone());
    for key in keys {
        let Some(title) = EXACT.get(*key) else { continue };
        let values: Vec<Option<Value>> = channels.iter().map(|(_, slices)| value(slices, *key)).collect();
        // Numbers from 1 in the order of the channels, for what is not to be told or has no number.
        let mut met: Vec<&Option<Value>> = Vec::new();
        for ((channel, _), found) in channels.iter_mut().zip(&values) {
            if !met.contains(&found) && found.is_some() {
                met.push(found);
            }
            let ordinal = met.iter().position(|known| *known == found).map_or(0.0, |place| (place + 1) as f64);
            let mark = match found {
                Some(Value::Number(number)) => Some(Mark::Number(*number)),
                Some(Value::Vector(_)) => Some(Mark::Number(ordinal)),
                Some(Value::Words(words)) => Some(component(words, &values).map_or(Mark::Number(ordinal), Mark::Word)),
                None if *title == "direction" => Some(Mark::Number(0.0)),
                None => None,
            };
            channel.marks.extend(mark.map(|mark| (*title, mark)));
        }
    }
    if is_ranked {
        // The place among the channels that have the same marks otherwise.
        let earlier: Vec<usize> = channels
            .iter()
            .enumerate()
            .map(|(k, (channel, _))| channels[..k].iter().filter(|(other, _)| other == channel).count())
            .collect();
        for ((channel, _), earlier) in channels.iter_mut().zip(earlier) {
            channel.marks.push((RANK, Mark::Number((earlier + 1) as f64)));
        }
    }
}

/// The one component of an image type that tells it from the others, if it is a term of the standard or of the scanners that is known; other text of a
/// header is not repeated (PS3.3 sections C.8.3.1.1.1, C.8.13.3.1.1; terms of Siemens, GE and Philips).
fn component(words: &[String], all: &[Option<Value>]) -> Option<&'static str> {
    const KNOWN: [&str; 41] = [
        "M",
        "P",
        "R",
        "I",
        "W",
        "F",
        "IP",
        "OP",
        "IN_PHASE",
        "OUT_PHASE",
        "WATER",
        "FAT",
        "MAGNITUDE",
        "PHASE",
        "REAL",
        "IMAGINARY",
        "M_FFE",
        "M_IR",
        "M_SE",
        "M_B0",
        "P_FFE",
        "PHASE MAP",
        "R_FFE",
        "I_FFE",
        "B0",
        "B1",
        "T1",
        "T2",
        "T2_STAR",
        "ADC",
        "EADC",
        "TRACEW",
        "TRACE",
        "FA",
        "DIFFUSION",
        "FIELD_MAP",
        "PROTON_DENSITY",
        "MIXED",
        "MAG",
        "UNI",
        "INV1",
    ];
    let others: Vec<&Vec<String>> =
        all.iter().flatten().filter_map(|value| if let Value::Words(words) = value { Some(words) } else { None }).collect();
    let telling = words.iter().filter(|word| !others.iter().all(|other| other.contains(word)));
    let known: Vec<&'static str> = telling.filter_map(|word| KNOWN.into_iter().find(|known| *known == word)).collect();
    // The term must be this type's alone, or it names two channels.
    known.into_iter().find(|word| others.iter().filter(|other| other.iter().any(|known| known == word)).all(|other| *other == words))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slice with an echo time, a b-value, a direction, a time position and an acquisition number.
    fn slice(number: f64, echo: Option<f64>, b: Option<f64>, direction: Option<[f64; 3]>, rank: Option<f64>) -> Marks {
        let mut marks = Marks { number, ..Marks::default() };
        marks.exact[2] = echo.map(Value::Number);
        marks.exact[5] = b.map(Value::Number);
        marks.exact[6] = direction.map(Value::Vector);
        marks.ranked[1] = rank;
        marks
    }

    fn marks_of(channels: &[(Channel, Vec<usize>)]) -> Vec<Vec<(&'static str, Mark)>> {
        channels.iter().map(|(channel, _)| channel.marks.clone()).collect()
    }

    #[test]
    fn echoes_are_told_apart_whatever_the_order_of_the_slices() {
        let marks = [30.0, 10.0, 10.0, 30.0].map(|echo| slice(0.0, Some(echo), None, None, None));
        let channels = tell_apart(&[vec![0, 1], vec![2, 3]], &marks).unwrap();
        assert_eq!(channels.iter().map(|(_, slices)| slices.clone()).collect::<Vec<_>>(), [[1, 2], [0, 3]]);
        assert_eq!(marks_of(&channels), [vec![("echo_time_ms", Mark::Number(10.0))], vec![("echo_time_ms", Mark::Number(30.0))]]);
    }

    #[test]
    fn directions_are_sorted_as_they_were_scanned() {
        let (x, y) = (Some([1.0, 0.0, 0.0]), Some([0.0, 1.0, 0.0]));
        let at = |first: f64| {
            [
                slice(first + 2.0, None, Some(1000.0), y, None),
                slice(first, None, Some(0.0), None, None),
                slice(first + 1.0, None, Some(1000.0), x, None),
            ]
        };
        let marks: Vec<Marks> = at(1.0).into_iter().chain(at(4.0)).collect();
        let channels = tell_apart(&[vec![0, 1, 2], vec![5, 4, 3]], &marks).unwrap();
        assert_eq!(channels.iter().map(|(_, slices)| slices.clone()).collect::<Vec<_>>(), [[1, 4], [2, 5], [0, 3]]);
        let b = |b, direction| vec![("b_value", Mark::Number(b)), ("direction", Mark::Number(direction))];
        assert_eq!(marks_of(&channels), [b(0.0, 0.0), b(1000.0, 1.0), b(1000.0, 2.0)]);
    }

    #[test]
    fn times_count_by_their_order_at_each_position() {
        // Two echoes at two times; acquisition numbers differ from position to position.
        let at = |first: f64| {
            [(20.0, 1.0), (10.0, 1.0), (20.0, 0.0), (10.0, 0.0)].map(|(echo, rank)| slice(0.0, Some(echo), None, None, Some(first + rank)))
        };
        let marks: Vec<Marks> = at(1.0).into_iter().chain(at(7.0)).collect();
        let channels = tell_apart(&[vec![0, 1, 2, 3], vec![4, 5, 6, 7]], &marks).unwrap();
        assert_eq!(channels.iter().map(|(_, slices)| slices.clone()).collect::<Vec<_>>(), [[3, 7], [1, 5], [2, 6], [0, 4]]);
        let marks = |echo, time| vec![("echo_time_ms", Mark::Number(echo)), ("time", Mark::Number(time))];
        assert_eq!(marks_of(&channels), [marks(10.0, 1.0), marks(10.0, 2.0), marks(20.0, 1.0), marks(20.0, 2.0)]);
    }

    #[test]
    fn slices_that_differ_in_nothing_or_not_everywhere_are_not_told_apart() {
        let twice = [slice(1.0, Some(10.0), None, None, Some(1.0)), slice(2.0, Some(10.0), None, None, Some(1.0))];
        assert!(tell_apart(&[vec![0, 1]], &twice).is_none(), "the same slice sent twice");
        let marks = [10.0, 20.0, 10.0, 10.0].map(|echo| slice(0.0, Some(echo), None, None, None));
        assert!(tell_apart(&[vec![0, 1], vec![2, 3]], &marks).is_none(), "the second echo is at one position only");
    }

    #[test]
    fn image_types_are_told_by_known_words_and_by_numbers_otherwise() {
        let typed = |words: &[&str]| {
            let mut marks = Marks::default();
            marks.exact[0] = Some(Value::Words(words.iter().map(|word| (*word).to_owned()).collect()));
            marks
        };
        let channels = tell_apart(&[vec![0, 1]], &[typed(&["ORIGINAL", "PRIMARY", "W"]), typed(&["ORIGINAL", "PRIMARY", "F"])]).unwrap();
        assert_eq!(marks_of(&channels), [vec![("image_type", Mark::Word("F"))], vec![("image_type", Mark::Word("W"))]]);
        let channels = tell_apart(&[vec![0, 1]], &[typed(&["ORIGINAL", "JANE DOE"]), typed(&["ORIGINAL", "OTHER"])]).unwrap();
        assert_eq!(marks_of(&channels), [vec![("image_type", Mark::Number(1.0))], vec![("image_type", Mark::Number(2.0))]]);
    }
}
