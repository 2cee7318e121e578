//! Where facts go.

pub mod json;
pub mod summary;
pub mod text;
