//! The command line of `status`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{parse_time, socket_parser};
use crate::commands::status::{StatusConfig, Where};

#[derive(Args)]
pub(super) struct StatusArgs {
    /// Socket (default: --plugin-socket, or the only one in --socket-dir)
    #[arg(long, value_name = "PATH", value_parser = socket_parser())]
    socket: Option<PathBuf>,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Timeout for connecting and the response
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_time)]
    timeout: Duration,
}

impl StatusArgs {
    pub(super) fn resolve(
        self,
        plugin_socket: Option<PathBuf>,
        socket_dir: PathBuf,
    ) -> StatusConfig {
        let socket = self.socket.or(plugin_socket).map_or(Where::In(socket_dir), Where::At);
        StatusConfig { socket, json: self.json, timeout: self.timeout }
    }
}
