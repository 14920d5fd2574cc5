//! Sets the base board manufacturer in the guest's SMBIOS tables, from the VM's annotation.

use std::process::ExitCode;

use kubevirt_hook::{ensure, is_plain, xml::Document, Call, Result, Worker};

const ANNOTATION: &str = "smbios.vm.kubevirt.io/baseBoardManufacturer";
const ENTRY: &str = "sysinfo[@type='smbios']/baseBoard/entry[@name='manufacturer']";

fn edit_domain(call: &Call, doc: &Document) -> Result<()> {
    let Some(name) = call.vmi().annotation(ANNOTATION) else { return Ok(()) };
    ensure!(is_plain(name), "annotation {ANNOTATION}: a character that SMBIOS cannot hold");
    doc.ensure("os/smbios")?.set("mode", "sysinfo")?;
    doc.ensure(ENTRY)?.set_text(name)?;
    Ok(())
}

fn main() -> ExitCode {
    Worker::new("smbios").version("1.0.0").edit_domain(edit_domain).run()
}
