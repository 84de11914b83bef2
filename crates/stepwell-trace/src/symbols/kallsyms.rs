//! The kernel's own symbol table.
use super::Symbols;
/// No table was found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KallsymsError {
    /// No table.
    #[error("the kernel carries no symbol table")]
    NotFound,
}
/// Recovers the table.
///
/// # Errors
///
/// [`KallsymsError`].
pub fn from_image(_image: &[u8]) -> Result<Symbols, KallsymsError> {
    Err(KallsymsError::NotFound)
}
