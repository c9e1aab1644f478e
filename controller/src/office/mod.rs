//! The controller's office. A stand-in until the service joins.

use std::sync::Arc;

use schemadock_schema::keys::Keys;
use schemadock_store::Store;

/// Why the office could not be held.
#[derive(Debug, thiserror::Error)]
pub enum OfficeError {
    /// This build has no controller in it.
    #[error("not yet: this build cannot carry out operations")]
    NotYet,
}

/// Holds the office in this process until an operation is over.
///
/// # Errors
/// When the office cannot be held.
pub async fn hold_office_until(
    _store: Arc<dyn Store>,
    _keys: Keys,
    _who: String,
    _operation: String,
) -> Result<(), OfficeError> {
    Err(OfficeError::NotYet)
}
