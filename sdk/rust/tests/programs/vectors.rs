//! The vector worker of `protocol/vectors`: each hook does what the VMI's field `vector` says. The
//! environment sets its concurrency.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "this is for tests alone")]

use std::process::ExitCode;
use std::time::Duration;

use kubevirt_hook::serde_json::Value;
use kubevirt_hook::{Call, InvalidParams, Level, Refusal, Result, Worker};

/// Does what a vector says. Returns the new text, or `None` for no change.
fn act(call: &Call, vector: &Value, node: Option<&str>, old: &str) -> Result<Option<String>> {
    let text = vector["text"].as_str().unwrap_or_default();
    match vector["do"].as_str() {
        None => Ok(None),
        Some("append") => Ok(Some(format!("{old}{text}"))),
        Some("answer") => Ok(Some(text.to_owned())),
        Some("grow") => {
            let bytes = usize::try_from(vector["bytes"].as_u64().unwrap_or_default())?;
            Ok(Some("x".repeat(bytes)))
        }
        Some("refuse") if vector["retryable"] == true => Err(Refusal::new(text).retryable().into()),
        Some("refuse") => Err(Refusal::new(text).into()),
        Some("reject") => Err(InvalidParams::new(text).into()),
        // Hooks fail in two ways: by a panic and by an error.
        Some("fail") if call.hook() == "onDefineDomain" => panic!("{text}"),
        Some("fail") => Err(text.into()),
        Some("invocation") => {
            let (attempt, context) = (call.attempt(), call.context().unwrap_or("none"));
            let node = node.unwrap_or("none");
            Err(Refusal::new(format!("attempt {attempt}, context {context}, node {node}")).into())
        }
        Some("log") => {
            log(call, vector["level"].as_str().unwrap_or_default(), text);
            Ok(None)
        }
        Some("print") => {
            println!("{text}");
            Ok(None)
        }
        Some("wait") => {
            let cancelled = call.cancellation().wait(Duration::from_secs(3600));
            match vector.get("then") {
                Some(then) => act(call, then, node, old),
                None => Err(cancelled.unwrap_err().into()),
            }
        }
        Some(other) => panic!("unknown vector {other}"),
    }
}

/// Logs a line, by level either through the call or through the `log` crate.
fn log(call: &Call, level: &str, text: &str) {
    match level {
        "debug" => call.log(Level::Debug, text),
        "info" => log::info!("{text}"),
        "warning" => log::warn!("{text}"),
        _ => call.log(Level::Error, text),
    }
}

fn main() -> ExitCode {
    let concurrency = std::env::var("VECTORS_CONCURRENCY").map_or(1, |text| text.parse().unwrap());
    Worker::new("vectors")
        .version("1.0.0")
        .concurrency(concurrency)
        .node_hook("preVMStart", |call, node| {
            act(call, &call.vmi()["vector"], Some(node), "")?;
            Ok(())
        })
        .on_define_domain(|call, domain| act(call, &call.vmi()["vector"], None, domain))
        .pre_cloud_init_iso(|call, mut data| {
            Ok(act(call, &call.vmi()["vector"], None, "")?.map(|text| {
                data["UserData"] = text.into();
                data
            }))
        })
        .logger(log::LevelFilter::Debug)
        .run()
}
