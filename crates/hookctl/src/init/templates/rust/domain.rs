//! Sets the asset tag of a VM to its annotation example.org/asset-tag.

use std::process::ExitCode;

use kubevirt_hook::{Call, Result, Worker, is_plain, refuse, xml::Document};

const ANNOTATION: &str = "example.org/asset-tag";
const ENTRY: &str = "sysinfo[@type='smbios']/chassis/entry[@name='asset']";

/// Changes the VM's libvirt domain. KubeVirt calls this up to three times for one boot.
fn set_asset_tag(call: &Call, doc: &Document) -> Result<()> {
    let Some(tag) = call.vmi().annotation(ANNOTATION) else {
        return Ok(()); // nothing changes
    };
    if !is_plain(tag) {
        // The VM's owner reads this text in the VM's events.
        refuse!("annotation {ANNOTATION}: a character that SMBIOS cannot hold");
    }
    doc.ensure(ENTRY)?.set_text(tag)?;
    Ok(())
}

fn worker() -> Worker<'static> {
    let worker = Worker::new("@NAME@").version(env!("CARGO_PKG_VERSION"));
    worker.edit_domain(set_asset_tag)
}

fn main() -> ExitCode {
    worker().run()
}

#[cfg(test)]
mod tests;
