//! The one table of configuration keys.
/// Type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// Text.
    Text,
    /// Path.
    Path,
    /// Whole number.
    Integer,
    /// Real number.
    Real,
    /// Truth value.
    Flag,
    /// List of texts.
    List,
}
/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Dotted name.
    pub name: &'static str,
    /// Type of its values.
    pub kind: Type,
    /// Default as text; empty = unset.
    pub default: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Whether the value is a secret (never answered).
    pub secret: bool,
}
/// Every key, in the order of documentation.
pub static KEYS: &[Key] = &[];
