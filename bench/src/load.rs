//! Clients: they call as virt-launcher does, and record how long each call took.

use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sidecar_shim::service::ApiVersion;
use sidecar_shim::service::client::{Client, ClientError};
use tokio::task::LocalSet;

use crate::documents::{Documents, Expected};
use crate::proc;
use crate::stats::Round;

/// virt-launcher's deadline for one call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Time for a server that has bound its socket to listen. With limits it may be throttled between.
const LISTEN_LIMIT: Duration = Duration::from_secs(1);

/// Pause between two attempts to connect.
const DIAL_PAUSE: Duration = Duration::from_micros(50);

/// Limit of a round with slow calls.
const LONGEST_ROUND: Duration = Duration::from_secs(20);

/// How a client connects.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
pub enum Connection {
    /// For each call, as virt-launcher does; connecting is part of the call's time.
    Dialled,
    /// Once.
    Kept,
}

impl fmt::Display for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Dialled => "dialled",
            Self::Kept => "kept",
        })
    }
}

/// What clients do in one round.
#[derive(Clone)]
pub struct Load {
    pub socket: PathBuf,
    pub documents: Documents,
    pub expected: Expected,
    pub connection: Connection,
    /// Concurrent clients. Each starts a call when its last one has finished.
    pub clients: usize,
    /// Duration of the round, ...
    pub time: Duration,
    /// ... and the minimum of calls that each client makes.
    pub least_calls: usize,
}

impl Load {
    /// Runs it against the server whose process this is.
    pub async fn run(&self, server: u32) -> Result<Round> {
        // One answer is compared in full, outside the measurement.
        let client = dial(&self.socket).await?;
        let answer = call(&client, &self.documents).await?;
        self.documents.check(&answer, self.expected, true)?;
        drop((client, answer));

        let load = Rc::new(self.clone());
        let cpu_before = proc::cpu(server)?;
        let started = Instant::now();
        let clients = LocalSet::new();
        let tasks: Vec<_> = (0..self.clients)
            .map(|_| clients.spawn_local(client_loop(load.clone(), started)))
            .collect();
        clients.await;
        let elapsed = started.elapsed();
        let mut latencies = Vec::new();
        for task in tasks {
            latencies.extend(task.await.context("a client has panicked")??);
        }
        let cpu = proc::cpu(server)?.saturating_sub(cpu_before);
        Ok(Round { latencies, elapsed, cpu })
    }
}

async fn client_loop(load: Rc<Load>, started: Instant) -> Result<Vec<Duration>> {
    let kept = match load.connection {
        Connection::Kept => Some(dial(&load.socket).await?),
        Connection::Dialled => None,
    };
    let mut latencies = Vec::new();
    loop {
        let elapsed = started.elapsed();
        if (elapsed >= load.time && latencies.len() >= load.least_calls) || elapsed > LONGEST_ROUND
        {
            return Ok(latencies);
        }
        let (latency, answer) = match &kept {
            Some(client) => {
                let before = Instant::now();
                let answer = call(client, &load.documents).await?;
                (before.elapsed(), answer)
            }
            None => dialled(&load.socket, &load.documents).await?,
        };
        load.documents.check(&answer, load.expected, false)?;
        latencies.push(latency);
    }
}

/// Connects. The file of a socket appears a moment before the server listens.
pub async fn dial(socket: &Path) -> Result<Client> {
    let started = Instant::now();
    loop {
        match Client::dial(socket).await {
            Err(ClientError::Dial { .. }) if started.elapsed() < LISTEN_LIMIT => sleep(DIAL_PAUSE),
            connected => return Ok(connected?),
        }
    }
}

/// One call on its own connection: its time and the answer.
pub async fn dialled(socket: &Path, documents: &Documents) -> Result<(Duration, bytes::Bytes)> {
    let before = Instant::now();
    let client = dial(socket).await?;
    let answer = call(&client, documents).await?;
    Ok((before.elapsed(), answer))
}

async fn call(client: &Client, documents: &Documents) -> Result<bytes::Bytes> {
    let Documents { vmi, domain } = documents.clone();
    Ok(client.on_define_domain(ApiVersion::V1Alpha3, vmi, domain, CALL_TIMEOUT).await?)
}
