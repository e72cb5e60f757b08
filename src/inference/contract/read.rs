//! A contract's JSON, key by key.

use serde_json::Value;

use super::{
    Activation, Around, Calibration, Channel, Code, Contract, Grid, Input, Intensity, Locate, MaskRule, Member, Output, OutputLabel,
    Postprocess, Reduce, Size, Task,
};
use crate::error::{Error, Kind, Result};
use crate::imaging::components::Connectivity;
use crate::imaging::orient::Orientation;
use crate::imaging::recipe;
use crate::imaging::resample::Interpolation;
use crate::json::{self, Object};

/// Reads a contract, from beside its model or from the model with this digest.
pub(super) fn contract(bytes: &[u8], embedded_in: Option<&str>) -> Result<Contract> {
    let value = json::parse(bytes, Kind::ModelContract)?;
    let root = Object::root("contract", &value, Kind::ModelContract)?;
    if root.required("contract")?.as_u64() != Some(1) {
        return Err(wrong("contract", "1, the version of the format that this build knows"));
    }
    let task = root.word("task", &[("segment", Task::Segment), ("predict", Task::Predict)], None)?;
    let inputs: Vec<Input> = root.objects("inputs", 1, 4)?.iter().map(input).collect::<Result<_>>()?;
    let grid = grid(&root.object("grid")?, task)?;
    let intensity = root.object("intensity")?;
    let from_raw = intensity.word("voxels", &[("preprocessed", false), ("raw", true)], Some(false))?;
    let plausibility = root.optional_object("plausibility")?;
    let contract = Contract {
        task,
        name: root.text("name")?,
        version: root.text("version")?,
        sha256: match embedded_in {
            Some(digest) => digest.to_owned(),
            None => sha256(&root)?,
        },
        card: root.optional("card").map(|_| root.text("card")).transpose()?,
        locate: root.optional_object("locate")?.map(|object| locate(&object, &grid, &inputs, from_raw)).transpose()?,
        inputs,
        grid,
        preprocess: root.objects("preprocess", 0, recipe::MOST_STEPS)?.iter().map(recipe::step).collect::<Result<_>>()?,
        ensemble: root.objects("ensemble", 0, 32)?.iter().map(member).collect::<Result<_>>()?,
        weight: root.number("weight", 1e-6..=1e6, Some(1.0))?,
        from_raw,
        intensity: intensity.objects("steps", 0, 32)?.iter().map(intensity_step).collect::<Result<_>>()?,
        output: output(&root.object("output")?, task)?,
        mask: root.optional_object("mask")?.map(|object| mask_rule(&object)).transpose()?,
        postprocess: root.objects("postprocess", 0, 32)?.iter().map(postprocess_step).collect::<Result<_>>()?,
        modalities: believed_texts(&plausibility, "modality")?,
        body_parts: believed_texts(&plausibility, "body_part")?,
        believed_ml: match &plausibility {
            Some(object) => object.objects("labels_ml", 0, 255)?.iter().map(believed).collect::<Result<_>>()?,
            None => Vec::new(),
        },
    };
    // `steps` may be empty but not absent: "nothing" is a statement about the model, too.
    intensity.required("steps")?;
    intensity.finish()?;
    plausibility.iter().try_for_each(Object::finish)?;
    root.finish()?;
    contract.check_sense()?;
    Ok(contract)
}

pub(super) fn wrong(key: &str, expected: &str) -> Error {
    json::wrong(Kind::ModelContract, key, expected)
}

fn sha256(object: &Object) -> Result<String> {
    let text = object.text("sha256")?.to_ascii_lowercase();
    let is_digest = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_digest { Ok(text) } else { Err(object.wrong("sha256", "64 hexadecimal digits")) }
}

/// A file beside the model: a name, never a path that leads elsewhere.
fn file(object: &Object) -> Result<String> {
    let name = object.text("file")?;
    let is_plain = !name.starts_with('.') && !name.contains(['/', '\\']);
    if is_plain { Ok(name) } else { Err(object.wrong("file", "the name of a file beside the model, without a folder")) }
}

fn input(object: &Object) -> Result<Input> {
    let channels = object.texts("channels", 1, 64)?;
    let channels = channels.iter().map(|word| {
        channel(word)
            .ok_or_else(|| object.wrong("channels", "volume, volume:N with N from 0, volume@K with K slices from -16 to 16, or mask"))
    });
    let input = Input { channels: channels.collect::<Result<_>>()?, name: object.text("name")? };
    object.finish()?;
    Ok(input)
}

/// `mask`, or `volume` with `:N` (which of the volume's channels) and `@K` (how many slices on).
fn channel(word: &str) -> Option<Channel> {
    if word == "mask" {
        return Some(Channel::Mask);
    }
    let rest = word.strip_prefix("volume")?;
    let (number, offset) = rest.split_once('@').map_or((rest, None), |(number, offset)| (number, Some(offset)));
    let number = match number.strip_prefix(':') {
        Some(number) => Some(usize::from(number.parse::<u16>().ok()?)),
        None if number.is_empty() => None,
        None => return None,
    };
    let offset = match offset {
        Some(offset) => offset.parse::<i64>().ok().filter(|offset| (-16..=16).contains(offset))?,
        None => 0,
    };
    Some(Channel::Volume { number, offset })
}

fn grid(object: &Object, task: Task) -> Result<Grid> {
    let orientation = match object.required("orientation")? {
        Value::Null => None,
        Value::String(code) => {
            Some(Orientation::parse(code).map_err(|_| object.wrong("orientation", "one letter each of R or L, A or P, S or I, or null"))?)
        }
        _ => return Err(object.wrong("orientation", "three letters or null")),
    };
    let mut axes = [0; 3];
    let letters = object.text("axes")?;
    let expected = || object.wrong("axes", "a permutation of xyz");
    if letters.len() != 3 || !"xyz".chars().all(|letter| letters.contains(letter)) {
        return Err(expected());
    }
    for (slot, letter) in axes.iter_mut().zip(letters.chars()) {
        *slot = "xyz".find(letter).ok_or_else(expected)?;
    }
    let spacing_mm = match object.required("spacing_mm")? {
        Value::Null => None,
        _ => Some(object.per_axis("spacing_mm", 0.01..=100.0)?),
    };
    let layouts = [("NCDHW", (true, false)), ("NDHWC", (false, false)), ("NCHW", (true, true)), ("NHWC", (false, true))];
    let (channels_first, is_slicewise) = object.word("layout", &layouts, None)?;
    let size = size(&object.object("size")?, task, is_slicewise)?;
    let grid = Grid { channels_first, is_slicewise, orientation, axes, spacing_mm, size };
    object.finish()?;
    Ok(grid)
}

/// Sides in D, H, W; of slice-wise models in H, W, with D = 1.
fn sides(object: &Object, key: &'static str, is_slicewise: bool) -> Result<[usize; 3]> {
    if !is_slicewise {
        return object.shape(key);
    }
    let list = object.numbers(key, 2, 2)?;
    let side = |number: f64| ((1.0..=8192.0).contains(&number) && number.fract() == 0.0).then_some(number as usize);
    match (list.first().copied().and_then(side), list.get(1).copied().and_then(side)) {
        (Some(height), Some(width)) => Ok([1, height, width]),
        _ => Err(object.wrong(key, "two whole numbers from 1 to 8192")),
    }
}

fn size(object: &Object, task: Task, is_slicewise: bool) -> Result<Size> {
    #[derive(Clone, Copy, PartialEq)]
    enum Rule {
        Sliding,
        Whole,
        Fit,
        Resize,
        Crop,
    }
    let words = [("sliding", Rule::Sliding), ("whole", Rule::Whole), ("fit", Rule::Fit), ("resize", Rule::Resize), ("crop", Rule::Crop)];
    let rule = object.word("rule", &words, None)?;
    if (task, rule) == (Task::Segment, Rule::Crop) || (task, rule) == (Task::Predict, Rule::Sliding) {
        return Err(wrong("grid.size.rule", "sliding only to segment, crop only to predict"));
    }
    let pad = || -> Result<f32> { Ok(object.number("pad_value", -1e30..=1e30, Some(0.0))? as f32) };
    let count = |number: u64| usize::try_from(number).map_err(|_| wrong("grid.size", "numbers that this machine can hold"));
    let size = match rule {
        Rule::Sliding => {
            let (window, multiple) = (sides(object, "window", is_slicewise)?, object.optional("multiple").is_some());
            let multiple = if multiple { Some(count(object.whole("multiple", 1..=4096, None)?)?) } else { None };
            let varied = &window[usize::from(is_slicewise)..];
            if multiple.is_some_and(|multiple| varied.iter().any(|side| side % multiple != 0)) {
                return Err(object.wrong("window", "multiples of grid.size.multiple"));
            }
            Size::Sliding {
                window,
                overlap: object.number("overlap", 0.0..=0.95, Some(0.25))?,
                gaussian: object.word("blend", &[("gaussian", true), ("constant", false)], Some(true))?,
                batch: count(object.whole("batch", 1..=1024, Some(1))?)?,
                multiple,
                pad: pad()?,
                background: match object.optional("background") {
                    Some(_) => Some(object.number("background", -1e30..=1e30, None)? as f32),
                    None => None,
                },
            }
        }
        Rule::Whole => Size::Whole { multiple: count(object.whole("multiple", 1..=4096, Some(1))?)?, pad: pad()? },
        Rule::Fit => Size::Fit { shape: sides(object, "shape", is_slicewise)?, pad: pad()? },
        Rule::Resize => Size::Resize {
            shape: sides(object, "shape", is_slicewise)?,
            how: object.word(
                "interpolation",
                &[("nearest_exact", Interpolation::Nearest), ("linear", Interpolation::Linear), ("bspline", Interpolation::BSpline)],
                None,
            )?,
        },
        Rule::Crop => Size::Crop {
            shape: sides(object, "shape", is_slicewise)?,
            pad: pad()?,
            around: match object.word("around", &[("largest", 0), ("all", 1), ("each", 2)], Some(0))? {
                0 => Around::Largest,
                1 => Around::All,
                _ => Around::Each { most: count(object.whole("most", 1..=256, Some(32))?)? },
            },
        },
    };
    object.finish()?;
    Ok(size)
}

/// A step on the model's grid: an operation that changes intensities only.
fn intensity_step(object: &Object) -> Result<Intensity> {
    // The one step that looks beyond its own grid.
    if object.optional("step").and_then(Value::as_str) == Some("clip_as_located") {
        object.finish()?;
        return Ok(Intensity::ClipAsLocated);
    }
    let operation = recipe::step(object)?;
    if operation.is_intensity() {
        Ok(Intensity::Operation(operation))
    } else {
        Err(object.wrong("step", "a step that changes intensities only"))
    }
}

fn locate(object: &Object, grid: &Grid, inputs: &[Input], from_raw: bool) -> Result<Locate> {
    let output = object.object("output")?;
    let threshold = output.number("threshold", 0.0..=1.0, Some(0.5))? as f32;
    let words = [("none", Activation::None), ("sigmoid", Activation::Sigmoid), ("softmax", Activation::Softmax)];
    let found = OutputLabel { channel: output.whole("channel", 0..=65_535, None)? as usize, value: 1, name: "located".into(), code: None };
    let output_read = Output {
        name: output.text("name")?,
        activation: output.word("activation", &words, None)?,
        activate_windows: false,
        labels: vec![found],
        threshold: Some(threshold),
        last_wins: false,
        positive: None,
        calibration: None,
        reduce: Reduce::Model,
    };
    output.finish()?;
    let intensity = object.object("intensity")?;
    let steps = intensity.objects("steps", 0, 32)?.iter().map(intensity_step).collect::<Result<Vec<_>>>()?;
    intensity.required("steps")?;
    intensity.finish()?;
    if steps.contains(&Intensity::ClipAsLocated) {
        return Err(object.wrong("intensity.steps", "no clip_as_located, which is for the pass after this one"));
    }
    let input = Input { name: object.text("input")?, channels: inputs.first().map(|input| input.channels.clone()).unwrap_or_default() };
    let digest = sha256(object)?;
    let contract = Contract {
        task: Task::Segment,
        name: "locate".into(),
        version: "1".into(),
        sha256: digest,
        card: None,
        inputs: vec![input],
        grid: Grid { size: size(&object.object("size")?, Task::Segment, grid.is_slicewise)?, ..*grid },
        preprocess: Vec::new(),
        locate: None,
        ensemble: Vec::new(),
        weight: 1.0,
        from_raw,
        intensity: steps,
        output: output_read,
        mask: None,
        postprocess: Vec::new(),
        modalities: Vec::new(),
        body_parts: Vec::new(),
        believed_ml: Vec::new(),
    };
    let connectivity = object.whole("connectivity", 6..=26, Some(26))?;
    let connectivity = u32::try_from(connectivity).ok().and_then(Connectivity::from_neighbours);
    let locate = Locate {
        file: file(object)?,
        contract: Box::new(contract),
        connectivity: connectivity.ok_or_else(|| object.wrong("connectivity", "6, 18 or 26"))?,
        plane_fraction: object.number("plane_fraction", 0.0..=1.0, Some(0.0))?,
        margin: object.number("margin", 0.0..=2.0, Some(0.1))?,
    };
    object.finish()?;
    Ok(locate)
}

fn member(object: &Object) -> Result<Member> {
    let member = Member { file: file(object)?, sha256: sha256(object)?, weight: object.number("weight", 1e-6..=1e6, Some(1.0))? };
    object.finish()?;
    Ok(member)
}

fn calibration(object: &Object) -> Result<Calibration> {
    let both = "one of temperature and isotonic";
    let found = match (object.optional("temperature"), object.optional("isotonic")) {
        (Some(_), None) => Calibration::Temperature(object.number("temperature", 0.01..=100.0, None)?),
        (None, Some(list)) => {
            let point = |value: &Value| -> Option<[f64; 2]> {
                let pair: Vec<f64> = value.as_array()?.iter().map(Value::as_f64).collect::<Option<_>>()?;
                <[f64; 2]>::try_from(pair).ok().filter(|pair| pair.iter().all(|p| (0.0..=1.0).contains(p)))
            };
            let points: Option<Vec<[f64; 2]>> = list.as_array().and_then(|list| list.iter().map(point).collect());
            let ascends = |points: &Vec<[f64; 2]>| points.windows(2).all(|pair| pair[0][0] < pair[1][0] && pair[0][1] <= pair[1][1]);
            let points = points.filter(|points| (2..=10_000).contains(&points.len()) && ascends(points));
            Calibration::Isotonic(points.ok_or_else(|| object.wrong("isotonic", "2 to 10000 pairs from 0 to 1, ascending"))?)
        }
        _ => return Err(wrong("output.calibration", both)),
    };
    object.finish()?;
    Ok(found)
}

fn output(object: &Object, task: Task) -> Result<Output> {
    let words =
        [("none", Activation::None), ("sigmoid", Activation::Sigmoid), ("softmax", Activation::Softmax), ("argmax", Activation::Argmax)];
    let activation = object.word("activation", &words, None)?;
    let labels: Vec<OutputLabel> =
        object.objects("labels", 1, 255)?.iter().map(|label| output_label(label, task)).collect::<Result<_>>()?;
    for (index, label) in labels.iter().enumerate() {
        let doubled = |other: &OutputLabel| {
            other.channel == label.channel || other.name == label.name || (task == Task::Segment && other.value == label.value)
        };
        if labels.iter().take(index).any(doubled) {
            return Err(wrong("output.labels", "channels, values and names that differ"));
        }
    }
    let mut output = Output {
        name: object.text("name")?,
        activation,
        activate_windows: false,
        labels,
        threshold: None,
        last_wins: false,
        positive: None,
        calibration: None,
        reduce: Reduce::Model,
    };
    match task {
        Task::Segment => {
            output.activate_windows = object.word("activate", &[("after_blending", false), ("before_blending", true)], Some(false))?;
            if object.optional("threshold").is_some() {
                output.threshold = Some(object.number("threshold", 0.0..=1.0, None)? as f32);
            }
            if activation == Activation::Argmax && (output.threshold.is_some() || output.activate_windows) {
                return Err(wrong("output.activation", "softmax, when there is a threshold or windows are activated before blending"));
            }
            if activation == Activation::Sigmoid && output.threshold.is_none() {
                output.threshold = Some(0.5);
            }
            output.last_wins = object.word("wins", &[("largest", false), ("last", true)], Some(false))?;
            if output.last_wins && output.threshold.is_none() {
                return Err(object.wrong("wins", "largest, since there is no threshold"));
            }
        }
        Task::Predict => {
            if activation == Activation::Argmax {
                return Err(wrong("output.activation", "none, sigmoid or softmax, since the task is predict"));
            }
            output.calibration = object.optional_object("calibration")?.map(|object| calibration(&object)).transpose()?;
            output.reduce =
                object.word("reduce", &[("max", Reduce::Max), ("mean", Reduce::Mean), ("model", Reduce::Model)], Some(Reduce::Model))?;
            if object.optional("positive").is_some() {
                let name = object.text("positive")?;
                let place = output.labels.iter().position(|label| label.name == name);
                output.positive = Some(place.ok_or_else(|| wrong("output.positive", "a name that output.labels has"))?);
            }
        }
    }
    object.finish()?;
    Ok(output)
}

fn output_label(object: &Object, task: Task) -> Result<OutputLabel> {
    let channel = usize::try_from(object.whole("channel", 0..=65_535, None)?).map_err(|_| wrong("output.labels", "channels in range"))?;
    let value = match task {
        Task::Segment => u8::try_from(object.whole("value", 1..=255, None)?).map_err(|_| wrong("output.labels", "values in range"))?,
        Task::Predict => 0,
    };
    let code = object.optional_object("code")?.map(|object| code(&object)).transpose()?;
    let label = OutputLabel { channel, value, name: object.text("name")?, code };
    object.finish()?;
    Ok(label)
}

fn code(object: &Object) -> Result<Code> {
    let code = Code { scheme: object.text("scheme")?, value: object.text("value")?, meaning: object.text("meaning")? };
    object.finish()?;
    Ok(code)
}

fn mask_rule(object: &Object) -> Result<MaskRule> {
    let allow_empty = match object.optional("allow_empty") {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| wrong("mask.allow_empty", "true or false"))?,
    };
    let rule = MaskRule { labels: object.texts("labels", 1, 255)?, allow_empty };
    object.finish()?;
    Ok(rule)
}

fn postprocess_step(object: &Object) -> Result<Postprocess> {
    let connectivity = || {
        let value = object.required("connectivity")?.as_u64().and_then(|count| u32::try_from(count).ok());
        value.and_then(Connectivity::from_neighbours).ok_or_else(|| wrong(&object.name("connectivity"), "6, 18 or 26"))
    };
    let step = match object.text("step")?.as_str() {
        "largest_component" => Postprocess::LargestComponent(connectivity()?),
        "fill_holes" => Postprocess::FillHoles,
        "min_size" => Postprocess::MinSize { ml: object.number("ml", 0.0..=1e6, None)?, connectivity: connectivity()? },
        _ => return Err(wrong(&object.name("step"), "one of largest_component, fill_holes, min_size")),
    };
    object.finish()?;
    Ok(step)
}

/// Texts of the plausibility that a header's value must be one of; none for any.
fn believed_texts(plausibility: &Option<Object>, name: &'static str) -> Result<Vec<String>> {
    match plausibility {
        Some(object) if object.optional(name).is_some() => object.texts(name, 1, 32),
        _ => Ok(Vec::new()),
    }
}

fn believed(object: &Object) -> Result<(String, f64, f64)> {
    let found = (object.text("name")?, object.number("min", 0.0..=1e9, None)?, object.number("max", 0.0..=1e9, None)?);
    object.finish()?;
    if found.1 <= found.2 { Ok(found) } else { Err(wrong(&object.name("min"), "at most max")) }
}
