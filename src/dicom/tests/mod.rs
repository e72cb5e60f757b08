//! Tests of the whole module: synthetic files written here byte by byte, and real ones against pydicom and SimpleITK.

mod blackout;
mod channels;
mod colours;
mod hostile;
mod kept;
mod mosaics;
mod real;
mod sample;
mod stacks;
mod upright;
mod values;
