//! What changed from one build to the other, function by function.

use serde::Serialize;

#[derive(Serialize)]
pub(super) struct Changes {}
