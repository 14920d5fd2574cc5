//! Starts a VM only in the rack that its annotation example.org/rack names.

use std::process::ExitCode;

use kubevirt_hook::{Call, Result, Worker, refuse};

const ANNOTATION: &str = "example.org/rack";

/// Runs on the node, for every VM that starts there. Node names begin with the rack's name.
fn check_rack(call: &Call, node: &str) -> Result<()> {
    if let Some(rack) = call.vmi().annotation(ANNOTATION)
        && !node.starts_with(&format!("{rack}-"))
    {
        // The VM's owner reads this text in the VM's events.
        refuse!("annotation {ANNOTATION}: node {node} is not in rack {rack}");
    }
    Ok(())
}

fn main() -> ExitCode {
    let worker = Worker::new("@NAME@").version(env!("CARGO_PKG_VERSION"));
    let worker = worker.concurrency(8);
    worker.on_node("preVMStart", check_rack).run()
}

#[cfg(test)]
mod tests;
