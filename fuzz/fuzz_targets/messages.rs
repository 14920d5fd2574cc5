//! Any output of a worker is a message or a fault, and the fault contains nothing of a document.

#![no_main]

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use sidecar_shim::frame::{FrameDecoder, Item};
use sidecar_shim::hook::{Checks, HookCall, HookName};
use sidecar_shim::rpc::{CallResult, Declared, Incoming, MessageReader, Outcome, read_result};
use tokio_util::codec::Decoder;

/// A part of the corpus's values, which no fault may contain.
const SECRET: &str = "s3cr3t";

static CALLS: LazyLock<[HookCall; 3]> = LazyLock::new(|| {
    let object = Bytes::from_static(b"{}");
    [
        HookCall::on_define_domain(&object, "domain", Bytes::from_static(b"<domain/>"))
            .expect("a call"),
        HookCall::pre_cloud_init_iso(&object, &object).expect("a call"),
        HookCall::node_hook(HookName::NODE_HOOKS[0].clone(), &object, "node".to_owned())
            .expect("a call"),
    ]
});

fuzz_target!(|stream: &[u8]| {
    let mut buffer = BytesMut::from(stream);
    let (mut decoder, mut reader) = (FrameDecoder::default(), MessageReader::default());
    while let Ok(Some(item)) = decoder.decode(&mut buffer) {
        let Item::Frame(frame) = item else { continue };
        match reader.take(frame) {
            Ok(None) => assert!(reader.in_message()),
            Ok(Some(Incoming::Response { outcome, .. })) => check(&outcome),
            Ok(Some(_)) => {}
            Err(fault) => {
                hides(&fault);
                return;
            }
        }
    }
});

/// Reads a response as one to `initialize`, and to each kind of hook.
fn check(outcome: &Outcome) {
    let declared = Declared::read(outcome);
    let Outcome::Result(parts) = outcome else { return };
    if let Err(fault) = declared {
        hides(&fault);
    }
    for call in CALLS.iter() {
        match read_result(call, parts) {
            Ok(CallResult::Output(output)) => {
                // Its fault may name an element, and the name may be the secret.
                let _ = call.accept(output, Checks::WellFormed);
            }
            Ok(CallResult::Unchanged | CallResult::Done) => {}
            Err(fault) => hides(&fault),
        }
    }
}

fn hides(fault: &impl ToString) {
    assert!(!fault.to_string().contains(SECRET));
}
