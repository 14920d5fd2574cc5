//! Compiles `proto/` with a compiler written in Rust, so that a build needs no `protoc`.

use std::error::Error;

const PROTOS: [&str; 7] = [
    "health.proto",
    "info.proto",
    "v1alpha1.proto",
    "v1alpha2.proto",
    "v1alpha3.proto",
    "plugins_v1alpha1.proto",
    "status_v1.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure()
        // Documents stay slices of the buffer that the request arrived in.
        .bytes(".")
        // The derived `Debug` would print whole documents.
        .skip_debug(["."])
        // `status --json` prints them.
        .message_attribute(".sidecar_shim.status.v1", "#[derive(serde::Serialize)]")
        // Clients and servers are written by hand: all versions share their messages.
        .build_client(false)
        .build_server(false)
        .compile_fds(descriptors)?;
    Ok(())
}
