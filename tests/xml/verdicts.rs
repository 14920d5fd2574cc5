//! Prints what the shim says of many documents, for `compare.py`. The input is a length (four bytes,
//! most significant first) and a document, again and again. The output has one line for each: empty
//! if the document is accepted, else the fault.

use std::io::{Read, Write};

use bytes::{Buf, Bytes};
use sidecar_shim::hook::{Checks, HookCall};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut input = Vec::new();
    std::io::stdin().lock().read_to_end(&mut input)?;
    let mut input = Bytes::from(input);
    let (vmi, domain) = (Bytes::from_static(b"{}"), Bytes::from_static(b"<domain/>"));
    let call = HookCall::on_define_domain(&vmi, "domain", domain)?;
    let mut output = Vec::new();
    while input.has_remaining() {
        let length = usize::try_from(input.try_get_u32()?)?;
        let document = input.split_to(length);
        match call.check(document, Checks::WellFormed) {
            Ok(_) => writeln!(output)?,
            Err(fault) => writeln!(output, "{fault}")?,
        }
    }
    std::io::stdout().lock().write_all(&output)?;
    Ok(())
}
