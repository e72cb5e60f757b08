//! Which series, and which grids: expected values are arithmetic on the page.

use super::sample::*;
use crate::control::Control;
use crate::dicom::{Counts, Limits, Loader, Policy, Selection, Verdict};
use crate::error::{Error, Kind};
use crate::secret::Plain;

fn stack(heights: &[f64]) -> Vec<Vec<u8>> {
    heights.iter().enumerate().map(|(k, z)| explicit(&slice(*z, 100 * k as u16))).collect()
}

fn check(files: Vec<Vec<u8>>, kind: Kind, words: &str) -> Error {
    let error = refused(load(files));
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.detail().contains(words), "{error} should say {words:?}");
    error
}

#[test]
fn a_stack_has_the_affine_of_the_standard_in_any_order_of_files() {
    for order in [[0, 1, 2], [2, 0, 1], [1, 2, 0]] {
        let files = stack(&[30.0, 32.0, 34.0]);
        let study = load(order.map(|k| files[k].clone())).unwrap();
        let geometry = &study.geometry;
        assert_eq!((geometry.dims, geometry.spacing_mm), ([3, 2, 3], [0.75, 0.5, 2.0]));
        // PS3.3 equation C.7.6.2.1-1: columns step 0.75 along x, rows 0.5 along y, slices 2 along z.
        let expected = [[0.75, 0.0, 0.0, -10.0], [0.0, 0.5, 0.0, -20.0], [0.0, 0.0, 2.0, 30.0], [0.0, 0.0, 0.0, 1.0]];
        assert_eq!((geometry.affine_lps, geometry.verdict.clone()), (expected, Verdict::Uniform));
        let voxels: Vec<f32> = [0, 100, 200].iter().flat_map(|first| (0..6).map(move |k| (first + k) as f32)).collect();
        assert_eq!((study.voxels.to_vec(), study.modality.as_str(), study.instances.len()), (voxels, "CT", 3));
        assert!(study.instances.iter().all(|instance| instance.dataset.get(dicom_dictionary_std::tags::PIXEL_DATA).is_none()));
    }
}

#[test]
fn slices_against_the_normal_are_turned_round() {
    // Rows run to the right of the patient, so the normal points down and the highest slice comes first.
    let turned = |z, first| explicit(&with(slice(z, first), text((0x0020, 0x0037), "DS", "-1\\0\\0\\0\\1\\0")));
    let study = load([turned(0.0, 0), turned(3.0, 100)]).unwrap();
    assert_eq!(study.voxels[0], 100.0);
    assert_eq!(study.geometry.affine_lps[2], [0.0, 0.0, -3.0, 3.0]);
}

#[test]
fn a_missing_slice_is_named() {
    check(stack(&[0.0, 2.0, 6.0, 8.0]), Kind::SliceMissing, "1 after slice 2");
    check(stack(&[0.0, 2.0, 4.0, 12.0, 14.0, 18.0]), Kind::SliceMissing, "3 after slice 3, 1 after slice 5");
    check(stack(&[0.0, 2.0, 6.0]), Kind::SliceMissing, "1 after slice 2");
}

#[test]
fn a_doubled_slice_is_named() {
    let error = check(stack(&[0.0, 2.0, 4.0, 2.0, 6.0]), Kind::SliceDoubled, "slices 2 and 3 of 5 (files 2 and 4)");
    assert!(error.hint().is_some());
    let error = check(stack(&[0.0, 2.0, 4.0, 0.0, 2.0, 4.0]), Kind::SliceDoubled, "and 2 more pairs");
    assert!(error.hint().unwrap().contains("2 volumes"));
}

#[test]
fn uneven_and_crooked_stacks_are_refused() {
    check(stack(&[0.0, 2.0, 4.6, 6.0]), Kind::GeometryInconsistent, "range from 1.400 to 2.600 mm");
    let shifted = |z, x| explicit(&with(slice(z, 0), text((0x0020, 0x0032), "DS", &format!("{x}\\0\\{z}"))));
    check(vec![shifted(0.0, 0.0), shifted(2.0, 1.0), shifted(4.0, 0.0)], Kind::GeometryInconsistent, "slice 2 (file 2) lies 1.000 mm off");
    // 2 mm sideways for 2 mm along the normal are 45 degrees, which no gantry does.
    check((0..4).map(|k| shifted(2.0 * f64::from(k), 2.0 * f64::from(k))).collect(), Kind::GeometryInconsistent, "45.0 degrees");
    check(vec![shifted(0.0, 0.0), shifted(0.0, 3.0)], Kind::GeometryInconsistent, "lie in one plane, 3.000 mm apart");
}

#[test]
fn rounded_positions_are_accepted() {
    // Steps of 2.3333 mm written with two decimals.
    let study = load(stack(&[0.0, 2.33, 4.67, 7.0, 9.33, 11.67, 14.0])).unwrap();
    assert!((study.geometry.spacing_mm[2] - 14.0 / 6.0).abs() < 1e-12);
}

#[test]
fn slices_that_disagree_are_named() {
    let files = |element: Element| vec![explicit(&slice(0.0, 0)), explicit(&slice(2.0, 0)), explicit(&with(slice(4.0, 0), element))];
    check(files(text((0x0020, 0x0037), "DS", "0\\1\\0\\0\\0\\-1")), Kind::GeometryInconsistent, "orientations of files 1 and 3 differ");
    check(files(text((0x0028, 0x0030), "DS", "0.6\\0.75")), Kind::GeometryInconsistent, "pixel spacings of files 1 and 3 differ");
    check(files(text((0x0020, 0x0052), "UI", "1.9")), Kind::GeometryInconsistent, "frames of reference");
    let other_shape = with(with(slice(4.0, 0), word((0x0028, 0x0010), 3)), word((0x0028, 0x0011), 2));
    check(vec![explicit(&slice(0.0, 0)), explicit(&other_shape)], Kind::GeometryInconsistent, "rows differ: 2 in file 1, 3 in file 2");
    let localizer = with(
        with(slice(4.0, 0), text((0x0020, 0x0037), "DS", "0\\1\\0\\0\\0\\-1")),
        text((0x0008, 0x0008), "CS", "ORIGINAL\\PRIMARY\\LOCALIZER"),
    );
    let error = check(vec![explicit(&slice(0.0, 0)), explicit(&localizer)], Kind::GeometryInconsistent, "orientations");
    assert_eq!(error.hint(), Some("file 2 is a localizer; leave it out of the series"));
}

#[test]
fn a_stack_without_a_place_is_refused() {
    let files = |tag| (0..2).map(|k| explicit(&without(slice(2.0 * k as f64, 0), tag))).collect();
    check(files((0x0020, 0x0032)), Kind::GeometryMissing, "position of file 1");
    check(files((0x0020, 0x0037)), Kind::GeometryMissing, "orientation of file 1");
    check(files((0x0028, 0x0030)), Kind::GeometryMissing, "pixel spacing of file 1");
    check(vec![explicit(&without(slice(0.0, 0), (0x0020, 0x0032)))], Kind::GeometryMissing, "position of file 1");
    check(
        stack(&[0.0, 2.0]).into_iter().map(|file| replace(file, b"1\\0\\0\\0\\1\\0", b"1\\0\\0\\1\\0\\0")).collect(),
        Kind::GeometryInconsistent,
        "perpendicular",
    );
}

fn replace(mut file: Vec<u8>, from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = file.windows(from.len()).position(|window| window == from).expect("the text is in the file");
    file[at..at + to.len()].copy_from_slice(to);
    file
}

#[test]
fn one_slice_takes_its_thickness_from_the_best_source() {
    let study = load([explicit(&slice(5.0, 0))]).unwrap();
    assert_eq!((study.geometry.verdict.clone(), study.geometry.spacing_mm), (Verdict::SingleSlice, [0.75, 0.5, 2.0]));
    let study = load([explicit(&with(slice(5.0, 0), text((0x0018, 0x0088), "DS", "2.5")))]).unwrap();
    assert_eq!(study.geometry.spacing_mm[2], 2.5);
    let study = load([explicit(&without(slice(5.0, 0), (0x0018, 0x0050)))]).unwrap();
    assert_eq!(study.geometry.spacing_mm[2], 1.0);
}

#[test]
fn a_radiograph_lies_at_the_origin() {
    let mut image = with(slice(0.0, 0), text((0x0008, 0x0060), "CS", "DX"));
    for tag in [(0x0020, 0x0032), (0x0020, 0x0037), (0x0028, 0x0030), (0x0018, 0x0050)] {
        image = without(image, tag);
    }
    check(vec![explicit(&image)], Kind::GeometryMissing, "pixel spacing");
    let study = load([explicit(&with(image, text((0x0018, 0x1164), "DS", "0.2\\0.1")))]).unwrap();
    let expected = [[0.1, 0.0, 0.0, 0.0], [0.0, 0.2, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]];
    assert_eq!((study.geometry.affine_lps, study.modality.as_str()), (expected, "DX"));
}

/// A multi-frame image whose frame k lies at a height and holds 2 x 3 values from 10 k on.
fn multi_frame(heights: &[f64]) -> Vec<Element> {
    let place = |z: f64| vec![items((0x0020, 0x9113), vec![vec![text((0x0020, 0x0032), "DS", &format!("0\\0\\{z}"))]])];
    let mut image = slice(0.0, 0);
    for tag in [(0x0020, 0x0032), (0x0020, 0x0037), (0x0028, 0x0030), (0x0018, 0x0050)] {
        image = without(image, tag);
    }
    let shared = vec![
        items((0x0020, 0x9116), vec![vec![text((0x0020, 0x0037), "DS", "1\\0\\0\\0\\1\\0")]]),
        items((0x0028, 0x9110), vec![vec![text((0x0028, 0x0030), "DS", "0.5\\0.75"), text((0x0018, 0x0050), "DS", "9")]]),
        items((0x0028, 0x9145), vec![vec![text((0x0028, 0x1052), "DS", "-1"), text((0x0028, 0x1053), "DS", "2")]]),
    ];
    let image = with(image, items((0x5200, 0x9229), vec![shared]));
    let image = with(image, items((0x5200, 0x9230), heights.iter().map(|z| place(*z)).collect()));
    let image = with(image, text((0x0028, 0x0008), "IS", &heights.len().to_string()));
    with(image, pixels(Value::Words((0..heights.len() as u16).flat_map(|k| (0..6).map(move |v| 10 * k + v)).collect())))
}

#[test]
fn frames_are_sorted_and_told_where_they_are_stored() {
    let study = load([explicit(&multi_frame(&[4.0, 0.0, 2.0]))]).unwrap();
    assert_eq!((study.geometry.verdict.clone(), study.geometry.spacing_mm), (Verdict::MultiFrame, [0.75, 0.5, 2.0]));
    // Frames 2, 3, 1, each value v becoming 2 v - 1.
    let voxels: Vec<f32> = [10, 20, 0].iter().flat_map(|first| (0..6).map(move |v| (2 * (first + v) - 1) as f32)).collect();
    assert_eq!(*study.voxels, voxels);
    // The header stays as it came; where each slice is stored is told beside it.
    let stored: Vec<[usize; 2]> = study.frames.iter().map(|of| [of.instance, of.frame]).collect();
    assert_eq!((stored, study.instances.len()), (vec![[0, 1], [0, 2], [0, 0]], 1));
}

#[test]
fn frames_that_form_no_stack_are_refused() {
    let error = check(vec![explicit(&multi_frame(&[0.0, 2.0, 0.0, 2.0]))], Kind::SliceDoubled, "frames 1 and 3");
    assert!(error.hint().unwrap().contains("2 volumes"));
    check(vec![explicit(&multi_frame(&[0.0, 2.0, 6.0]))], Kind::SliceMissing, "1 after slice 2");
    let without_places = without(multi_frame(&[0.0, 2.0]), (0x5200, 0x9230));
    check(vec![explicit(&without_places)], Kind::GeometryMissing, "position of frame 1");
    let too_few = with(multi_frame(&[0.0, 2.0]), items((0x5200, 0x9230), vec![vec![]]));
    check(vec![explicit(&too_few)], Kind::DicomMalformed, "1 functional groups for 2 frames");
    let twice = vec![explicit(&multi_frame(&[0.0, 2.0])), explicit(&multi_frame(&[2.0, 4.0]))];
    check(twice, Kind::SliceDoubled, "slices 2 and 3 of 4 (frame 2 of file 1 and frame 1 of file 2)");
}

#[test]
fn frames_without_a_transformation_of_their_own_share_the_tables_of_the_image() {
    let words = |tag, values: Vec<u16>| Element { tag, vr: "US", value: Value::Words(values) };
    let table: Vec<u16> = (0..16).map(|value| 500 + value).collect();
    let lut = vec![words((0x0028, 0x3002), vec![16, 0, 16]), words((0x0028, 0x3006), table)];
    let own = |z: f64, slope: Option<&str>| {
        let place = items((0x0020, 0x9113), vec![vec![text((0x0020, 0x0032), "DS", &format!("0\\0\\{z}"))]]);
        let values = slope.map(|slope| items((0x0028, 0x9145), vec![vec![text((0x0028, 0x1053), "DS", slope)]]));
        [place].into_iter().chain(values).collect::<Vec<_>>()
    };
    let shared = vec![
        items((0x0020, 0x9116), vec![vec![text((0x0020, 0x0037), "DS", "1\\0\\0\\0\\1\\0")]]),
        items((0x0028, 0x9110), vec![vec![text((0x0028, 0x0030), "DS", "0.5\\0.75")]]),
    ];
    let image = with(multi_frame(&[0.0; 3]), items((0x5200, 0x9229), vec![shared]));
    let image = with(image, items((0x5200, 0x9230), vec![own(0.0, None), own(2.0, Some("3")), own(4.0, None)]));
    let study = load([explicit(&with(image, items((0x0028, 0x3000), vec![lut])))]).unwrap();
    // Values 0, 10 and 20: by the table, by the frame's own slope, by the table's last entry.
    assert_eq!(study.voxels.chunks(6).map(|slice| slice[0]).collect::<Vec<_>>(), [500.0, 30.0, 515.0]);
}

#[test]
fn several_files_of_frames_are_one_stack_where_they_fit() {
    let study = load([explicit(&multi_frame(&[4.0, 6.0])), explicit(&multi_frame(&[0.0, 2.0]))]).unwrap();
    assert_eq!((study.geometry.dims, study.geometry.verdict.clone()), ([3, 2, 4], Verdict::Uniform));
    let firsts: Vec<f32> = study.voxels.chunks(6).map(|slice| slice[0]).collect();
    assert_eq!(firsts, [-1.0, 19.0, -1.0, 19.0]);
    let stored: Vec<[usize; 2]> = study.frames.iter().map(|of| [of.instance, of.frame]).collect();
    assert_eq!((stored, study.instances.len()), (vec![[0, 0], [0, 1], [1, 0], [1, 1]], 2));
}

#[test]
fn of_two_stacks_in_one_file_the_larger_is_taken_when_asked_for() {
    // Frames 2 and 4 are sagittal.
    let group = |z: f64, orientation: &str| {
        vec![
            items((0x0020, 0x9113), vec![vec![text((0x0020, 0x0032), "DS", &format!("{z}\\0\\{z}"))]]),
            items((0x0020, 0x9116), vec![vec![text((0x0020, 0x0037), "DS", orientation)]]),
        ]
    };
    let (axial, sagittal) = ("1\\0\\0\\0\\1\\0", "0\\1\\0\\0\\0\\-1");
    let mut groups = vec![group(0.0, sagittal), group(3.0, sagittal)];
    for z in [0.0, 2.0, 4.0] {
        let mut axial = group(z, axial);
        axial[0] = items((0x0020, 0x9113), vec![vec![text((0x0020, 0x0032), "DS", &format!("0\\0\\{z}"))]]);
        groups.insert(1.min(groups.len()), axial);
    }
    let image = with(multi_frame(&[0.0; 5]), items((0x5200, 0x9230), groups));
    check(vec![explicit(&image)], Kind::GeometryInconsistent, "orientations of frames 1 and 2 differ");
    let policy = Policy { takes_largest: true, ..Policy::default() };
    let study = load_by([explicit(&image)], Selection::default(), policy).unwrap();
    assert_eq!((study.geometry.dims, study.left_out), ([3, 2, 3], 2));
    // Axial frames were put in front of one another: 4, 2 and 0 mm are frames 2, 3, 4.
    assert_eq!(study.frames.iter().map(|of| of.frame).collect::<Vec<_>>(), [3, 2, 1]);
}

fn in_series(z: f64, uid: &str, number: &str, description: &str) -> Vec<u8> {
    let image = with(slice(z, 0), text((0x0020, 0x000E), "UI", uid));
    explicit(&with(with(image, text((0x0020, 0x0011), "IS", number)), text((0x0008, 0x103E), "LO", description)))
}

fn chosen(study: &crate::dicom::IdentifiedStudy) -> String {
    let uid = dicom_dictionary_std::tags::SERIES_INSTANCE_UID;
    crate::dicom::attributes::text(&study.instances[0].dataset, uid).expect("a series instance uid")
}

#[test]
fn the_rule_takes_most_slices_then_the_lowest_number_then_the_uid() {
    let long = [in_series(0.0, "1.8", "9", "long"), in_series(1.0, "1.8", "9", "long")];
    let study = load([in_series(0.0, "1.5", "2", "short"), long[0].clone(), long[1].clone()]).unwrap();
    assert_eq!(chosen(&study), "1.8");
    assert_eq!(chosen(&load([in_series(0.0, "1.1", "10", ""), in_series(0.0, "1.2", "9", "")]).unwrap()), "1.2");
    assert_eq!(chosen(&load([in_series(0.0, "1.4", "3", ""), in_series(0.0, "1.3", "3", "")]).unwrap()), "1.3");
    // A segmentation has more frames and is still not the series.
    let segmentation = with(multi_frame(&[0.0, 2.0, 4.0]), text((0x0008, 0x0016), "UI", "1.2.840.10008.5.1.4.1.1.66.4"));
    let segmentation = with(segmentation, text((0x0020, 0x000E), "UI", "1.1"));
    assert_eq!(chosen(&load([explicit(&segmentation), in_series(0.0, "1.3", "3", "")]).unwrap()), "1.3");
}

#[test]
fn a_named_series_is_taken_and_an_unknown_one_is_an_error() {
    let files = || [in_series(0.0, "1.8", "9", "T1 "), in_series(1.0, "1.8", "9", "T1"), in_series(0.0, "1.5", "2", "T2")];
    let by_uid = |uid: &str| load_selected(files(), Selection { series_uid: Some(uid.to_owned()), ..Selection::default() });
    let by_name = |name: &str| load_selected(files(), Selection { series_description: Some(name.to_owned()), ..Selection::default() });
    assert_eq!(chosen(&by_uid("1.5").unwrap()), "1.5");
    assert_eq!(chosen(&by_name("T1").unwrap()), "1.8");
    assert_eq!(refused(by_uid("1.55")).kind(), Kind::SeriesNotFound);
    assert_eq!(refused(by_name("T")).kind(), Kind::SeriesNotFound);
}

#[test]
fn what_is_no_image_is_counted_and_ignored() {
    let mut loader = Loader::new(Limits::default(), Selection::default(), Policy::default());
    let mut directory = explicit(&slice(0.0, 0));
    let from = b"1.2.840.10008.5.1.4.1.1.2\0";
    let at = directory.windows(from.len()).position(|window| window == from).unwrap();
    directory[at..at + from.len()].copy_from_slice(b"1.2.840.10008.1.3.10\0\0\0\0\0\0");
    let report = explicit(&without(slice(0.0, 0), (0x7FE0, 0x0010)));
    let others = [b"".to_vec(), b"<html>".to_vec(), vec![8, 0, 5, 0, 1, 2, 3], vec![0; 4096], b"\x89PNG\r\n\x1a\n0000".to_vec()];
    for (k, bytes) in others.into_iter().chain([directory, report]).enumerate() {
        loader.add(k, Plain::new(bytes), &Control::new()).unwrap();
    }
    assert_eq!(loader.counts().unwrap(), Counts { images: 0, without_pixels: 1, directories: 1, foreign: 5 });
    assert_eq!(refused(loader.finish(&Control::new())).kind(), Kind::NoDicomFiles);
}

#[test]
fn cancelling_stops_the_loader() {
    let control = Control::new();
    let mut loader = Loader::new(Limits::default(), Selection::default(), Policy::default());
    loader.add(1, Plain::new(explicit(&slice(0.0, 0))), &control).unwrap();
    control.cancel();
    assert_eq!(loader.add(2, Plain::new(explicit(&slice(1.0, 0))), &control).unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(refused(loader.finish(&control)).kind(), Kind::Cancelled);
}

#[test]
fn coordinates_out_of_this_world_are_refused() {
    for far in ["1e300", "-1e7"] {
        let image = with(slice(0.0, 0), text((0x0020, 0x0032), "DS", &format!("0\\0\\{far}")));
        check(vec![explicit(&image), explicit(&slice(0.0, 0))], Kind::GeometryInconsistent, "file 1 lies or reaches beyond");
    }
    let image = with(slice(0.0, 0), text((0x0020, 0x0032), "DS", "0\\0\\NaN"));
    check(vec![explicit(&image)], Kind::DicomMalformed, "(0020,0032)");
}
