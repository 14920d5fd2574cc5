//! Asks a shim for its health: the probe of a container whose image has no other program.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::timeout;

use crate::service::client::{Client, ClientError};

pub struct HealthConfig {
    /// Socket of a shim that serves the Plugins API.
    pub socket: PathBuf,
    /// Timeout for connecting and the response together.
    pub timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no response within {}", humantime::format_duration(*.0))]
    Late(Duration),
    #[error("{0}: its workers keep failing, or it is shutting down; its log says which")]
    NotServing(String),
}

/// Succeeds if the shim reports that it serves.
pub async fn run(config: HealthConfig) -> ExitCode {
    match ask(&config).await {
        Ok(status) => {
            // A probe reads the exit status alone.
            super::print_line(&status);
            ExitCode::SUCCESS
        }
        Err(error) => {
            super::print_error(format_args!("{} is not healthy: {error}", config.socket.display()));
            ExitCode::FAILURE
        }
    }
}

async fn ask(config: &HealthConfig) -> Result<String, Unhealthy> {
    // The call's own deadline is later, so that one clock covers both steps.
    let later = config.timeout * 2;
    let asking = async { Client::dial(&config.socket).await?.health(later).await };
    let health = timeout(config.timeout, asking).await;
    let health = health.map_err(|_| Unhealthy::Late(config.timeout))??;
    if health.serving { Ok(health.status) } else { Err(Unhealthy::NotServing(health.status)) }
}
