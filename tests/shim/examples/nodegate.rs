//! The node hook in Go, as a worker and as a program.

use std::fs;

use serde_json::json;
use tonic::Code;

use crate::support::{Shim, go};

#[tokio::test]
async fn it_refuses_vms_while_the_file_exists() {
    let Some(program) = go("nodegate") else { return };
    for (mode, code) in [("exec", Code::Internal), ("persistent", Code::FailedPrecondition)] {
        // A program that serves several node hooks finds out by its name which one it is.
        let builder = Shim::builder().plugin().link("preVMStart", &program.words[0]);
        let gate = builder.dir().join("closed");
        let shim = builder.env("NODEGATE_FILE", &gate).args(["--mode", mode]).start().await;
        let plugin = shim.dial_plugin().await;
        plugin.node_hook("PreVMStart", &json!({})).await.unwrap();
        fs::write(&gate, "new firmware until noon\n").unwrap();
        let status = plugin.node_hook("PreVMStart", &json!({})).await.unwrap_err();
        assert_eq!(status.code(), code, "{mode}: {status:?}");
        let refusal = "node node01 does not accept VMs: new firmware until noon";
        assert!(status.message().contains(refusal), "{mode}: {status:?}");
    }
}
