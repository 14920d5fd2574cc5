//! Asks a shim for its status: for people, or as JSON.

mod text;

use std::io::{ErrorKind, IsTerminal as _};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use crate::service::client::{Client, ClientError};
use crate::service::proto::status::GetResponse;
use crate::stdio;
use crate::text::escape_line;

/// Maximum number of sockets that an error names.
const MAX_NAMED: usize = 20;

pub struct StatusConfig {
    pub socket: Where,
    /// Whether to print JSON.
    pub json: bool,
    /// Timeout for connecting and the response together.
    pub timeout: Duration,
}

/// Where the shim's socket is.
pub enum Where {
    At(PathBuf),
    /// The only socket in this directory.
    In(PathBuf),
}

#[derive(Debug, thiserror::Error)]
enum NoStatus {
    #[error("cannot read {}: {source}; name a socket with --socket", directory.display())]
    Directory { directory: PathBuf, source: std::io::Error },
    #[error(
        "there is no socket in {}: name one with --socket, or its directory with --socket-dir",
        .0.display()
    )]
    NoSocket(PathBuf),
    #[error("there are several sockets: name one with --socket:\n{0}")]
    Several(String),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(
        "{0} does not serve sidecar_shim.status.v1: its shim is older than this program, or it is \
         another program's socket"
    )]
    NotServed(String),
    #[error("{socket}: no response within {}", humantime::format_duration(*after))]
    Late { socket: String, after: Duration },
}

/// Prints the status.
pub async fn run(config: StatusConfig) -> ExitCode {
    let status = match ask(&config).await {
        Ok(status) => status,
        Err(error) => {
            super::print_error(error);
            return ExitCode::FAILURE;
        }
    };
    let stdout = std::io::stdout();
    let page = if config.json {
        json(&status)
    } else {
        let is_set = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        text::page(&status, stdout.is_terminal() && !is_set)
    };
    match stdio::write_all(stdout, &mut page.as_bytes()) {
        // A reader that closes stdout does not want to read it.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            super::print_error(format_args!("cannot write the status: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

async fn ask(config: &StatusConfig) -> Result<GetResponse, NoStatus> {
    let socket = match &config.socket {
        Where::At(path) => path.clone(),
        Where::In(directory) => only_socket(directory)?,
    };
    let name = socket.display().to_string();
    // The call's own deadline is later, so that one clock covers both steps.
    let later = config.timeout * 2;
    let asking = async { Client::dial(&socket).await?.status(true, later).await };
    match timeout(config.timeout, asking).await {
        Ok(Err(ClientError::OtherApi { .. })) => Err(NoStatus::NotServed(name)),
        Ok(answer) => Ok(answer?),
        Err(_) => Err(NoStatus::Late { socket: name, after: config.timeout }),
    }
}

fn only_socket(directory: &Path) -> Result<PathBuf, NoStatus> {
    let failed = |source| NoStatus::Directory { directory: directory.to_owned(), source };
    let mut sockets = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.metadata().is_ok_and(|found| found.file_type().is_socket()) {
            sockets.push(path);
        }
    }
    sockets.sort();
    match &sockets[..] {
        [] => Err(NoStatus::NoSocket(directory.to_owned())),
        [only] => Ok(only.clone()),
        several => {
            let names = several.iter().take(MAX_NAMED).map(|path| path.display().to_string());
            Err(NoStatus::Several(names.collect::<Vec<_>>().join("\n")))
        }
    }
}

/// Returns the status as a line of JSON.
fn json(status: &GetResponse) -> String {
    // Cannot fail: all keys are strings.
    let mut value = serde_json::to_value(status).unwrap_or_default();
    make_harmless(&mut value);
    format!("{value}\n")
}

/// Escapes control characters, which another program's answer may have.
fn make_harmless(value: &mut Value) {
    match value {
        Value::String(text) => *text = escape_line(text).into_owned(),
        Value::Array(values) => values.iter_mut().for_each(make_harmless),
        Value::Object(members) => members.values_mut().for_each(make_harmless),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
