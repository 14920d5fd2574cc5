//! Metrics for Prometheus, over HTTP: for shims of a node alone. A sidecar runs in the pod of a VM,
//! whose ports are not there for this.
//!
//! # Theory of operation
//! Nothing is counted here. Each scrape asks the backend what it is doing, takes the counts of
//! [`Stats`], and writes both as text, so a shim without metrics has no more than those counts.
//!
//! A metric has no label with a VM, and every label has few values: the hooks that are served,
//! gRPC's statuses, and words of ours.

mod families;
mod http;
mod process;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

pub use http::{Listener, serve};

use crate::admission::Memory;
use crate::backend::Backend;
use crate::stats::Stats;

/// Where metrics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What metrics are made of.
pub struct Sources {
    pub backend: Arc<Backend>,
    pub stats: Arc<Stats>,
    pub memory: Memory,
    /// Cancelled when the shim shuts down.
    pub stop: CancellationToken,
}

impl Sources {
    /// Whether calls are served.
    fn is_ready(&self) -> bool {
        !self.stop.is_cancelled() && *self.backend.pools_down().borrow() == 0
    }
}
