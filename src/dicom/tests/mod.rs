//! Tests of the whole module: synthetic files written here byte by byte, and real ones against pydicom and SimpleITK.

mod hostile;
mod real;
mod sample;
mod stacks;
mod upright;
mod values;
