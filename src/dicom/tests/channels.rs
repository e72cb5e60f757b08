//! Several volumes on one grid: expected values are arithmetic on the page; a real field map is in `real`.

use super::sample::*;
use crate::dicom::geometry::{Policy, Remedy};
use crate::dicom::{IdentifiedStudy, Mark, Selection, Verdict};
use crate::error::Kind;

/// A slice at a height with further elements; its first value tells it apart.
fn marked(z: f64, first: u16, elements: &[Element]) -> Vec<u8> {
    let mut image = slice(z, first);
    elements.iter().for_each(|element| image = with(image.clone(), element.clone()));
    explicit(&image)
}

fn firsts(study: &IdentifiedStudy) -> Vec<f32> {
    study.voxels.chunks(6).map(|slice| slice[0]).collect()
}

fn marks(study: &IdentifiedStudy) -> Vec<Vec<(&'static str, Mark)>> {
    study.channels.iter().map(|channel| channel.marks.clone()).collect()
}

fn number(name: &'static str, values: &[f64]) -> Vec<Vec<(&'static str, Mark)>> {
    values.iter().map(|value| vec![(name, Mark::Number(*value))]).collect()
}

#[test]
fn echoes_and_time_positions_become_channels_in_any_order_of_files() {
    let echo = |time: &str| text((0x0018, 0x0081), "DS", time);
    let files = || {
        vec![
            marked(0.0, 10, &[echo("4.6")]),
            marked(2.0, 20, &[echo("4.6")]),
            marked(0.0, 30, &[echo("2.3")]),
            marked(2.0, 40, &[echo("2.3")]),
        ]
    };
    for order in [[0, 1, 2, 3], [3, 1, 0, 2], [2, 3, 1, 0]] {
        let study = load(order.map(|k| files()[k].clone())).unwrap();
        assert_eq!((study.geometry.dims, study.geometry.verdict.clone()), ([3, 2, 2], Verdict::Uniform));
        assert_eq!((firsts(&study), marks(&study)), (vec![30.0, 40.0, 10.0, 20.0], number("echo_time_ms", &[2.3, 4.6])));
        // Headers come in the order of the volume.
        assert_eq!(study.frames.iter().map(|of| of.instance).collect::<Vec<_>>(), [0, 1, 2, 3]);
        assert_eq!(study.instances.len(), 4);
    }
    let at = |position: &str| text((0x0020, 0x0100), "IS", position);
    let study = load([marked(0.0, 10, &[at("2")]), marked(0.0, 20, &[at("10")]), marked(0.0, 30, &[at("1")])]).unwrap();
    assert_eq!((study.geometry.dims, study.geometry.verdict.clone()), ([3, 2, 1], Verdict::SingleSlice));
    assert_eq!((firsts(&study), marks(&study)), (vec![30.0, 10.0, 20.0], number("time", &[1.0, 2.0, 10.0])));
}

#[test]
fn a_dynamic_series_is_sorted_by_its_times_at_each_position() {
    // Each position is scanned at its own moment; the second time point begins before midnight and ends after it.
    let taken = |date: &str, time: &str| [text((0x0008, 0x0022), "DA", date), text((0x0008, 0x0032), "TM", time)];
    let files = [
        marked(0.0, 10, &taken("20200102", "235950.5")),
        marked(2.0, 20, &taken("20200102", "235951")),
        marked(0.0, 30, &taken("20200102", "235959.75")),
        marked(2.0, 40, &taken("20200103", "000000.25")),
    ];
    let study = load(files).unwrap();
    assert_eq!((firsts(&study), marks(&study)), (vec![10.0, 20.0, 30.0, 40.0], number("time", &[1.0, 2.0])));
}

#[test]
fn diffusion_values_are_read_from_the_standard_and_from_the_makers() {
    let standard = |b: f64| vec![Element { tag: (0x0018, 0x9087), vr: "FD", value: Value::Bytes(b.to_le_bytes().to_vec()) }];
    let siemens = |b: &str| vec![text((0x0019, 0x0010), "LO", "SIEMENS MR HEADER"), text((0x0019, 0x100C), "IS", b)];
    let unknown = |b: &str| {
        vec![
            text((0x0019, 0x0010), "LO", "SIEMENS MR HEADER"),
            Element { tag: (0x0019, 0x100C), vr: "UN", value: Value::Bytes(b.as_bytes().to_vec()) },
        ]
    };
    let ge = |b: &str| vec![text((0x0043, 0x0011), "LO", "GEMS_PARM_01"), text((0x0043, 0x1139), "IS", b)];
    let philips = |b: f32| {
        vec![
            text((0x2001, 0x0010), "LO", "Philips Imaging DD 001"),
            Element { tag: (0x2001, 0x1003), vr: "FL", value: Value::Bytes(b.to_le_bytes().to_vec()) },
        ]
    };
    for [low, high] in [
        [standard(0.0), standard(1000.0)],
        [siemens("0 "), siemens("1000")],
        [unknown("0 "), unknown("1000")],
        [ge("0\\6\\0\\0"), ge("1000001000\\6\\0\\0")],
        [philips(0.0), philips(1000.0)],
    ] {
        let study = load([marked(0.0, 10, &high), marked(2.0, 20, &high), marked(2.0, 30, &low), marked(0.0, 40, &low)]).unwrap();
        assert_eq!((firsts(&study), marks(&study)), (vec![40.0, 30.0, 10.0, 20.0], number("b_value", &[0.0, 1000.0])));
    }
}

#[test]
fn volumes_that_nothing_tells_apart_or_that_are_incomplete_are_refused() {
    let echo = |time: &str| [text((0x0018, 0x0081), "DS", time)];
    // The same series twice, with other instance numbers and times of storage.
    let resent = |first: u16, number: &str| {
        [0.0, 2.0].map(|z| marked(z, first, &[text((0x0020, 0x0013), "IS", number), text((0x0008, 0x0033), "TM", number)]))
    };
    let error = refused(load([resent(0, "120000"), resent(50, "130000")].concat()));
    assert_eq!(error.kind(), Kind::SliceDoubled);
    assert!(error.hint().unwrap().contains("2 volumes, and no time, echo or b-value tells them apart"), "{error}");
    let error = refused(load([marked(0.0, 0, &echo("1")), marked(0.0, 10, &echo("2")), marked(2.0, 20, &echo("1"))]));
    assert_eq!(error.kind(), Kind::SliceDoubled, "the second echo lacks a slice");
    let error =
        refused(load([marked(0.0, 0, &echo("1")), marked(0.0, 10, &echo("2")), marked(2.0, 20, &echo("1")), marked(2.0, 30, &echo("3"))]));
    assert_eq!(error.kind(), Kind::SliceDoubled, "each position has an echo that the other lacks");
}

#[test]
fn every_channel_is_made_upright() {
    let placed = |y: f64, z: f64, first: u16, echo: &str| {
        marked(z, first, &[text((0x0020, 0x0032), "DS", &format!("-10\\{y}\\{z}")), text((0x0018, 0x0081), "DS", echo)])
    };
    let policy = Policy { tilt: Remedy::Resample, ..Policy::default() };
    // Half a millimetre, one row, towards the back for every 2 mm.
    let files = [placed(0.0, 0.0, 10, "1"), placed(0.5, 2.0, 20, "1"), placed(0.0, 0.0, 30, "2"), placed(0.5, 2.0, 40, "2")];
    let study = load_by(files, Selection::default(), policy).unwrap();
    assert_eq!((study.geometry.dims, study.channels.len(), study.voxels.len()), ([3, 3, 2], 2, 36));
    let rows = |first: f32| [[first, first + 1.0, first + 2.0], [first + 3.0, first + 4.0, first + 5.0]];
    let channel = |low: f32, high: f32| [rows(low).concat(), vec![low; 3], vec![low; 3], rows(high).concat()].concat();
    assert_eq!(*study.voxels, [channel(10.0, 20.0), channel(30.0, 40.0)].concat());
}
