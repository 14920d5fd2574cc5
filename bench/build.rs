//! Compiles the service that the baseline serves.

use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=../proto");
    let descriptors = protox::compile(["v1alpha3.proto"], ["../proto"])?;
    tonic_prost_build::configure().bytes(".").build_client(false).compile_fds(descriptors)?;
    Ok(())
}
