//! A worker with a node hook that takes some time, and notes the order of its calls.

use std::fs::OpenOptions;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::echo_worker::{read_frame, write_frames};

/// The hook, and its point in the API.
pub const HOOK_POINT: &str = "PreVMStart";

const DECLARED: &str = r#"{"protocolVersion":1,"hooks":["preVMStart"]}"#;

#[derive(Deserialize)]
struct Request {
    id: u64,
    method: String,
    params: Params,
}

#[derive(Deserialize)]
struct Params {
    vmi: Option<Vmi>,
}

#[derive(Deserialize)]
struct Vmi {
    metadata: Metadata,
}

/// The number of the VM is its name.
#[derive(Deserialize)]
struct Metadata {
    name: String,
}

/// Serves until EOF. Each call takes this time. All workers append the names of their VMs to one
/// file, a line each.
pub fn run(order: &Path, work: Duration) -> Result<()> {
    let mut order = OpenOptions::new().append(true).open(order)?;
    let mut input = BufReader::new(io::stdin().lock());
    let (mut output, mut json) = (io::stdout().lock(), Vec::new());
    loop {
        let mut first = [0];
        if input.read(&mut first)? == 0 {
            return Ok(());
        }
        read_frame(&mut first.chain(&mut input), &mut json)?;
        let Request { id, method, params } = serde_json::from_slice(&json)?;
        let result = if method == "initialize" {
            DECLARED
        } else {
            let vm = params.vmi.context("a call without a VMI")?.metadata.name;
            // One write: the lines of several workers do not mix.
            order.write_all(format!("{vm}\n").as_bytes())?;
            sleep(work);
            "{}"
        };
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#);
        write_frames(&mut output, &[answer.as_bytes()])?;
        output.flush()?;
    }
}
