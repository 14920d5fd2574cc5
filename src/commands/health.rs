//! Asks a shim how it is: for probes of a container whose image has no other program.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::timeout;

use crate::service::client::{Client, ClientError};

/// Whom to ask, and for how long.
pub struct HealthConfig {
    /// The socket of a shim that serves the Plugins API.
    pub socket: PathBuf,
    /// How long connecting and the answer may take.
    pub timeout: Duration,
}

/// Why a shim is not well.
#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Late(Duration),
    #[error("{0}: its workers fail again and again, or it was told to stop; its log says which")]
    NotServing(String),
}

/// Ends with success if the shim answers that it serves.
pub async fn run(config: HealthConfig) -> ExitCode {
    match ask(&config).await {
        Ok(status) => {
            // A probe reads the exit status; whoever has closed standard output does not read this.
            let _ = writeln!(std::io::stdout(), "{status}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            super::fail(format_args!("{} is not healthy: {error}", config.socket.display()))
        }
    }
}

async fn ask(config: &HealthConfig) -> Result<String, Unhealthy> {
    // The call's own deadline comes later: one clock says for both steps that it is late.
    let later = config.timeout * 2;
    let asking = async { Client::dial(&config.socket).await?.health(later).await };
    let health = timeout(config.timeout, asking).await;
    let health = health.map_err(|_| Unhealthy::Late(config.timeout))??;
    if health.serving { Ok(health.status) } else { Err(Unhealthy::NotServing(health.status)) }
}
