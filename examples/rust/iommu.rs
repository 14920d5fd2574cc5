//! Gives the guest an emulated Intel IOMMU, where the VM's annotation asks for it: a guest needs one
//! to pass its devices on to guests of its own, say.

use std::process::ExitCode;

use kubevirt_hook::{xml, Call, Refusal, Result, Worker};

const ANNOTATION: &str = "iommu.vm.kubevirt.io/model";

fn on_define_domain(call: &Call, domain: &str) -> Result<Option<String>> {
    match call.annotation(ANNOTATION) {
        None => return Ok(None),
        Some("intel") => {}
        Some(_) => {
            let why = format!("annotation {ANNOTATION}: the only model here is \"intel\"");
            return Err(Refusal::new(why).into());
        }
    }
    // QEMU remaps interrupts only if it emulates the I/O APIC itself, instead of the kernel.
    let domain = xml::set_attribute(domain, "features/ioapic", "driver", "qemu")?;
    let domain = xml::set_attribute(&domain, "devices/iommu", "model", "intel")?;
    Ok(Some(xml::set_attribute(&domain, "devices/iommu/driver", "intremap", "on")?))
}

fn main() -> ExitCode {
    Worker::new("iommu").version("1.0.0").on_define_domain(on_define_domain).run()
}
