//! The vector worker of `protocol/vectors`: each hook does what the VMI's field `vector` says. The
//! environment sets its concurrency, the level of its log, and whether it logs before it runs.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "this is for tests alone")]

use std::process::ExitCode;
use std::time::Duration;

use kubevirt_hook::serde_json::Value;
use kubevirt_hook::{refuse, Call, Context, InvalidParams, Level, Refused, Result, Worker};

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
        Some("refuse") if vector["retryable"] == true => Err(Refused::new(text).retryable().into()),
        Some("refuse") => Err(Refused::new(text).into()),
        Some("reject") => Err(InvalidParams::new(text).into()),
        // Hooks fail in two ways: by a panic and by an error.
        Some("fail") if call.hook() == "onDefineDomain" => panic!("{text}"),
        Some("fail") => Err(text.to_owned().into()),
        Some("invocation") => {
            let context = call.context().map_or("none", Context::as_str);
            let node = node.unwrap_or("none");
            refuse!("attempt {}, context {context}, node {node}", call.attempt())
        }
        Some("log") => {
            log(call, vector, text);
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

/// Logs a line, by level either through the call or through the `log` crate, which has fields.
fn log(call: &Call, vector: &Value, text: &str) {
    let level = match vector["level"].as_str().unwrap_or_default() {
        "debug" => return call.log(Level::Debug, text),
        "info" => log::Level::Info,
        "warning" => log::Level::Warn,
        _ if vector.get("fields").is_none() => return call.log(Level::Error, text),
        _ => log::Level::Error,
    };
    let fields = vector["fields"].as_object().into_iter().flatten();
    let fields: Vec<(&str, log::kv::Value<'_>)> =
        fields.map(|(name, value)| (name.as_str(), field(value))).collect();
    let arguments = format_args!("{text}");
    let record = log::Record::builder().level(level).args(arguments).key_values(&fields).build();
    log::logger().log(&record);
}

fn field(value: &Value) -> log::kv::Value<'_> {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Bool(value) => (*value).into(),
        Value::Number(number) if number.is_i64() => number.as_i64().unwrap().into(),
        other => other.as_f64().unwrap().into(),
    }
}

fn main() -> ExitCode {
    let concurrency = std::env::var("VECTORS_CONCURRENCY").map_or(1, |text| text.parse().unwrap());
    let mut worker = Worker::new("vectors");
    if std::env::var_os("VECTORS_DEBUG").is_some() {
        worker = worker.log_level(Level::Debug);
        log::warn!(disk = "vda"; "logged early");
    }
    worker
        .version("1.0.0")
        .concurrency(concurrency)
        .on_node("preVMStart", |call, node| {
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
        .run()
}
