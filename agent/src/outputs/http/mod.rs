//! HTTP: metrics, health, incidents, the live stream and the page. It runs on a thread of its own and reads
//! what the pipeline left for it: no request, slow or hostile, can hold the pipeline up. Read-only.

mod access;
mod api;
mod error;
mod incidents;
mod limits;
mod live;
mod openapi;
mod page;
mod rates;
mod server;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use access::{Access, Error as AccessError};
pub use api::document;
pub use limits::Traffic;
pub use rates::{Rates, SERIES, STEP};
pub use server::{Server, bind};
pub use status::{HookStatus, ProbeStatus, Status};

use super::{store::Store, stream::Hub};

/// What requests are answered from.
pub struct App {
    /// The incidents.
    pub store: Store,
    /// The live stream.
    pub hub: Arc<Hub>,
    /// How the pipeline and its probes are.
    pub status: Arc<Status>,
    /// Main rates.
    pub rates: Arc<Rates>,
    /// Requests and connections.
    pub traffic: Arc<Traffic>,
    /// The metrics, in the form that suits an `Accept` header: content type and text.
    pub metrics: Metrics,
}

/// Writes the metrics.
pub type Metrics = Box<dyn Fn(Option<&str>) -> (&'static str, String) + Send + Sync>;
