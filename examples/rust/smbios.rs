//! Sets the base board manufacturer in the guest's SMBIOS tables, from the VM's annotation.

use std::process::ExitCode;

use kubevirt_hook::{xml, Call, Refusal, Result, Worker};

const ANNOTATION: &str = "smbios.vm.kubevirt.io/baseBoardManufacturer";
const ENTRY: &str = "sysinfo[@type='smbios']/baseBoard/entry[@name='manufacturer']";

fn on_define_domain(call: &Call, domain: &str) -> Result<Option<String>> {
    let Some(manufacturer) = call.annotation(ANNOTATION) else { return Ok(None) };
    if !xml::is_plain(manufacturer) {
        let why = format!("annotation {ANNOTATION}: a character that SMBIOS cannot hold");
        return Err(Refusal::new(why).into());
    }
    let domain = xml::set_attribute(domain, "os/smbios", "mode", "sysinfo")?;
    Ok(Some(xml::set_text(&domain, ENTRY, manufacturer)?))
}

fn main() -> ExitCode {
    Worker::new("smbios").version("1.0.0").on_define_domain(on_define_domain).run()
}
