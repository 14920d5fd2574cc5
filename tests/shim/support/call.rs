//! Calls in flight, and the gates at which hooks hold them there.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::stat::Mode;
use serde_json::{Value, json};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;
use tonic::Status;

use super::{Client, DOMAIN, LIMIT, Shim, comment};

/// A call that was sent.
pub type Call<T = String> = JoinHandle<Result<T, Status>>;

/// A FIFO: a hook that reads it waits until the test opens the gate.
pub struct Gate(pub PathBuf);

impl Gate {
    pub fn new(path: PathBuf) -> Self {
        nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
        Self(path)
    }

    /// Waits until a hook is at the gate. The gate opens when the returned sender is dropped.
    pub async fn reached(&self) -> pipe::Sender {
        let waiting = async {
            loop {
                // There is no event for this: opening fails until a reader exists.
                match pipe::OpenOptions::new().open_sender(&self.0) {
                    Ok(sender) => return sender,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("no hook has reached the gate")
    }
}

/// A call in flight that waits at a gate.
pub struct InFlight<T = String> {
    call: Call<T>,
    gate: pipe::Sender,
}

impl<T> InFlight<T> {
    /// Waits until a call has reached its gate.
    pub async fn new(call: Call<T>, gate: &Gate) -> Self {
        Self { call, gate: gate.reached().await }
    }

    /// Opens the gate, and returns what the hook answers.
    pub async fn finish(self) -> Result<T, Status> {
        drop(self.gate);
        self.call.await.unwrap()
    }

    /// Returns the answer of a call that gets one although its gate stays closed.
    pub async fn answer(self) -> Result<T, Status> {
        let answer = self.call.await.unwrap();
        drop(self.gate);
        answer
    }
}

impl Shim {
    /// Sends a call of `OnDefineDomain`.
    pub async fn send(&self, vmi: &Value) -> Call {
        self.send_within(vmi, LIMIT).await
    }

    /// Sends a call with a deadline.
    pub async fn send_within(&self, vmi: &Value, deadline: Duration) -> Call {
        let (client, vmi) = (self.dial().await, vmi.to_string());
        tokio::spawn(async move { client.define_within("v1alpha3", vmi, DOMAIN, deadline).await })
    }

    /// Sends a call to the fixture worker, and returns when it is in flight. It answers with its pid.
    pub async fn call_in_flight(&self) -> InFlight {
        self.call_at_gate("wait").await
    }

    /// Sends a call to the fixture worker that does something at a gate, and returns when the worker
    /// has reached it.
    pub async fn call_at_gate(&self, action: &str) -> InFlight {
        let gate = self.gate();
        let call = self.send(&json!({"do": action, "path": gate.0})).await;
        InFlight::new(call, &gate).await
    }

    /// Makes a call, and returns the pid of the fixture worker that answers it.
    pub async fn worker_pid(&self) -> u64 {
        let about = self.define(&json!({"do": "about"}), DOMAIN).await.unwrap();
        comment(&about)["pid"].as_u64().unwrap()
    }

    /// Sends a `PreVMStart` call, and returns when its hook has reached the gate that `vmi` names.
    pub async fn node_hook_in_flight(&self, vmi: impl FnOnce(&Gate) -> Value) -> InFlight<()> {
        let gate = self.gate();
        let call = self.send_node_hook(vmi(&gate)).await;
        InFlight::new(call, &gate).await
    }

    /// Sends a `PreVMStart` call.
    pub async fn send_node_hook(&self, vmi: Value) -> Call<()> {
        let plugin: Client = self.dial_plugin().await;
        tokio::spawn(async move { plugin.node_hook("PreVMStart", &vmi).await })
    }
}
