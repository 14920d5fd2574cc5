//! The line that says what a shim serves, with what, and within which limits.

use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Config;
use crate::backend::{Backend, Settings};
use crate::hook::HookName;
use crate::service::Api;

/// Logs that a socket is served. The line of hook sidecars has the words of the Go shim's.
pub(super) fn log_start(socket: &Path, api: Api, backend: &Backend, limits: &Value) {
    let shim_version = env!("CARGO_PKG_VERSION");
    let hooks: Vec<_> = backend.hooks().iter().map(HookName::as_str).collect();
    let (socket, hooks) = (socket.display(), hooks.join(", "));
    let mode = if backend.is_persistent() { "persistent" } else { "exec" };
    let commands = json!(backend.commands()).to_string();
    let (workers, programs) =
        if backend.is_persistent() { (Some(commands), None) } else { (None, Some(commands)) };
    let [workers, programs] = [workers, programs].map(|json| json.map(tracing::field::display));
    match api {
        Api::Legacy(_) => tracing::info!(
            %socket, version = %api, shim_version, mode, hooks, workers, programs, %limits,
            "serving: shim is now exposing its services on socket {socket}"
        ),
        Api::Plugins => tracing::info!(
            %socket, version = %api, shim_version, mode, hooks, workers, programs, %limits,
            "serving"
        ),
    }
}

/// Returns the limits in force, named as their options are. What is unlimited is left out, and so
/// is what exec mode does not use.
pub(super) fn limits(settings: &Settings, config: &Config, is_persistent: bool) -> Value {
    let time = |time: Duration| Some(humantime::format_duration(time).to_string().into());
    let bytes = |bytes: usize| (bytes < usize::MAX).then(|| bytes.into());
    let of_workers = |value: Option<Value>| value.filter(|_| is_persistent);
    let all = [
        ("max_workers", Some(settings.max_workers.into())),
        ("min_workers", of_workers(Some(settings.min_workers.into()))),
        ("idle_timeout", of_workers(time(settings.idle_timeout))),
        ("max_requests", of_workers(settings.max_requests.map(Value::from))),
        ("start_timeout", of_workers(time(settings.start_timeout))),
        ("worker_memory", settings.worker_memory.map(Value::from)),
        ("queue_limit", bytes(settings.queue.calls)),
        ("queue_bytes", bytes(settings.queue.bytes)),
        ("kill_grace", time(settings.kill_grace)),
        ("call_timeout", config.call_timeout.and_then(time)),
        ("slow", config.slow.and_then(time)),
        ("shutdown_grace", time(config.shutdown_grace)),
        ("memory_budget", bytes(config.memory.limit())),
    ];
    let present = all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    present.collect::<Map<_, _>>().into()
}
