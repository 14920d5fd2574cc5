//! The command line of `health`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{parse_time, socket_parser, usage};
use crate::commands::health::HealthConfig;
use crate::error::StartError;

#[derive(Args)]
pub(super) struct HealthArgs {
    /// Socket of the shim (default: --plugin-socket)
    #[arg(long, value_name = "PATH", value_parser = socket_parser())]
    socket: Option<PathBuf>,

    /// Timeout for connecting and the response
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_time)]
    timeout: Duration,
}

impl HealthArgs {
    pub(super) fn resolve(
        self,
        plugin_socket: Option<PathBuf>,
    ) -> Result<HealthConfig, StartError> {
        let socket = self.socket.or(plugin_socket).ok_or_else(|| {
            usage("no socket: name one with --socket, or in SIDECAR_SHIM_PLUGIN_SOCKET")
        })?;
        Ok(HealthConfig { socket, timeout: self.timeout })
    }
}
