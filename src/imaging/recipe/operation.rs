//! The operations that a recipe can have, with their parameters, and what each needs of a volume.

use crate::error::{Error, Kind, Result, Stage};
use crate::imaging::filters::{diffusion, total_variation};
use crate::imaging::intensity::{clahe, matching, nyul, white_stripe, window};
use crate::imaging::orient::Orientation;
use crate::imaging::resample::Interpolation;
use crate::imaging::{Volume, n4, normalize};

/// Voxels that statistics are taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Region {
    /// All.
    #[default]
    All,
    /// Those that are not 0.
    Nonzero,
    /// The foreground: above Otsu's threshold, largest component, holes filled ([`crate::imaging::masks`]).
    Foreground,
}

/// Parameters of non-local means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NonLocalMeans {
    /// Patches have 2 r + 1 voxels along each axis.
    pub patch_radius: usize,
    /// How far from a voxel the patches reach that its own is compared with.
    pub block_radius: usize,
    /// Standard deviation of the noise, in the voxels' unit; `None` estimates it.
    pub sigma: Option<f64>,
    /// Whether the noise is that of magnitudes; `None`: it is for MR.
    pub is_rician: Option<bool>,
    /// Whether whole patches are averaged (Coupé et al. 2008) instead of voxels.
    pub is_blockwise: bool,
}

impl Default for NonLocalMeans {
    fn default() -> NonLocalMeans {
        NonLocalMeans { patch_radius: 1, block_radius: 3, sigma: None, is_rician: None, is_blockwise: false }
    }
}

/// One operation of a recipe.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Operation {
    /// N4 bias field correction; MR only.
    N4(n4::Parameters),
    /// Non-local means; no negative voxels.
    NonLocalMeans(NonLocalMeans),
    /// Gaussian of this standard deviation, mm.
    Gaussian {
        /// Standard deviation, mm, above 0.
        sigma_mm: f64,
    },
    /// Median of a cube.
    Median {
        /// The cube has 2 r + 1 voxels along each axis; 1 to 3.
        radius: usize,
    },
    /// Anisotropic diffusion.
    Diffusion {
        /// Its parameters.
        parameters: diffusion::Parameters,
        /// Whether a time step that is not stable for the volume's spacing is made smaller, and not refused.
        is_step_limited: bool,
    },
    /// Total variation; the weight is a fraction of the distance between the 0.5 and 99.5 percentiles.
    TotalVariation(total_variation::Parameters),
    /// Another spacing.
    Resample {
        /// Spacing along columns, rows and slices, mm.
        spacing_mm: [f64; 3],
        /// How values between voxels are found.
        interpolation: Interpolation,
        /// Whether axes that shrink are smoothed first.
        is_antialiased: bool,
    },
    /// Axes reordered and flipped, never interpolated.
    Reorient(Orientation),
    /// Centre crop or padding to a number of columns, rows and slices.
    Fit {
        /// Columns, rows, slices.
        shape: [usize; 3],
        /// Value of the voxels that are added.
        pad: f32,
    },
    /// Clipped at percentiles (numpy's linear method).
    PercentileClip {
        /// Lower percentile, 0 to 100.
        lower: f64,
        /// Upper percentile, 0 to 100.
        upper: f64,
        /// Voxels that the percentiles are taken from.
        over: Region,
    },
    /// (x - mean) / standard deviation.
    Zscore {
        /// Voxels that the statistics are taken from.
        over: Region,
        /// Degrees of freedom taken off: 0 or 1.
        ddof: usize,
    },
    /// Smallest voxel to `low`, largest to `high`.
    Minmax {
        /// New smallest value.
        low: f64,
        /// New largest value.
        high: f64,
    },
    /// Clipped at values.
    Clamp {
        /// Lower limit.
        low: f64,
        /// Upper limit.
        high: f64,
    },
    /// scale x + shift.
    Affine {
        /// Factor.
        scale: f64,
        /// Summand.
        shift: f64,
    },
    /// A window of values, as a viewer shows it (PS3.3 C.11.2).
    Window(window::Window),
    /// Landmarks of a standard scale (Nyúl and Udupa 1999).
    Nyul(nyul::Landmarks),
    /// WhiteStripe (Shinohara et al. 2014).
    WhiteStripe(white_stripe::Parameters),
    /// Histogram of a reference.
    MatchHistogram(matching::Reference),
    /// Contrast-limited adaptive histogram equalization (Zuiderveld 1994).
    Clahe {
        /// How contrast is limited.
        parameters: clahe::Parameters,
        /// Whether regions reach over slices, or each slice is treated by itself.
        is_3d: bool,
    },
}

impl Operation {
    /// Name in recipes, results and the audit log.
    pub fn name(&self) -> &'static str {
        match self {
            Operation::N4(_) => "n4",
            Operation::NonLocalMeans(_) => "nlm",
            Operation::Gaussian { .. } => "gaussian",
            Operation::Median { .. } => "median",
            Operation::Diffusion { parameters, .. } if parameters.kind == diffusion::Kind::Curvature => "curvature_diffusion",
            Operation::Diffusion { .. } => "gradient_diffusion",
            Operation::TotalVariation(_) => "total_variation",
            Operation::Resample { .. } => "resample",
            Operation::Reorient(_) => "reorient",
            Operation::Fit { .. } => "fit",
            Operation::PercentileClip { .. } => "percentile_clip",
            Operation::Zscore { .. } => "zscore",
            Operation::Minmax { .. } => "minmax",
            Operation::Clamp { .. } => "clamp",
            Operation::Affine { .. } => "affine",
            Operation::Window(_) => "window",
            Operation::Nyul(_) => "nyul",
            Operation::WhiteStripe(_) => "white_stripe",
            Operation::MatchHistogram(_) => "match_histogram",
            Operation::Clahe { .. } => "clahe",
        }
    }

    /// Whether only intensities change, by rules that need no spacing: what a contract may ask for on the model's own grid.
    pub fn is_intensity(&self) -> bool {
        use Operation as O;
        matches!(
            self,
            O::PercentileClip { .. }
                | O::Zscore { .. }
                | O::Minmax { .. }
                | O::Clamp { .. }
                | O::Affine { .. }
                | O::Window(_)
                | O::Nyul(_)
                | O::WhiteStripe(_)
                | O::MatchHistogram(_)
                | O::Clahe { .. }
        )
    }

    /// Whether voxels that were not negative stay so.
    fn keeps_magnitudes(&self) -> bool {
        use Operation as O;
        match self {
            O::N4(_) | O::NonLocalMeans(_) | O::Gaussian { .. } | O::Median { .. } | O::Reorient(_) | O::PercentileClip { .. } => true,
            O::Resample { interpolation, .. } => *interpolation != Interpolation::BSpline,
            _ => false,
        }
    }

    /// A rough share of a recipe's time, for progress.
    pub(super) fn weight(&self) -> f64 {
        match self {
            Operation::N4(_) | Operation::NonLocalMeans(_) => 10.0,
            Operation::Diffusion { .. } | Operation::TotalVariation(_) | Operation::Clahe { .. } => 5.0,
            _ => 1.0,
        }
    }
}

/// Says at once what would only fail, or do harm, after other steps.
///
/// # Errors
/// [`Kind::InvalidArgument`].
pub(super) fn refuse_unfit(volume: &Volume, operations: &[Operation]) -> Result<()> {
    let unfit =
        |detail: &'static str, hint: &'static str| Err(Error::new(Kind::InvalidArgument, detail).with_hint(hint).at(Stage::Imaging));
    if operations.iter().any(|operation| matches!(operation, Operation::N4(_))) && volume.modality != "MR" {
        return unfit(
            "n4 corrects the bias field of mr volumes, and this is none",
            "leave n4 out, or set preprocess.bias_correction to none",
        );
    }
    // What comes after a step that makes negative voxels out of others is judged when its turn comes.
    let known = operations.iter().take_while(|operation| operation.keeps_magnitudes());
    if known.clone().any(|operation| matches!(operation, Operation::NonLocalMeans(_))) && normalize::range(&volume.voxels).0 < 0.0 {
        return unfit("nlm is a filter for magnitudes, and voxels are negative", "choose another preprocess.denoise, median for one");
    }
    Ok(())
}
