//! Emulates an IOMMU for guests that isolate devices themselves (nested virtualization, DPDK). The
//! VM's annotation enables it. The only model is intel, on machine type q35.

use std::process::ExitCode;

use kubevirt_hook::{xml, Call, Refusal, Result, Worker};

const ANNOTATION: &str = "iommu.vm.kubevirt.io/model";

fn on_define_domain(call: &Call, domain: &str) -> Result<Option<String>> {
    let Some(model) = call.annotation(ANNOTATION) else { return Ok(None) };
    let document = xml::parse(domain)?;
    let machine =
        xml::find(document.root_element(), "os/type").and_then(|it| it.attribute("machine"));
    if model != "intel" || !machine.is_some_and(|machine| machine.contains("q35")) {
        let why = format!("annotation {ANNOTATION}: only intel on machine type q35 works");
        return Err(Refusal::new(why).into());
    }
    // Interrupt remapping needs QEMU's I/O APIC instead of the kernel's.
    let domain = xml::set_attribute(domain, "features/ioapic", "driver", "qemu")?;
    let domain = xml::set_attribute(&domain, "devices/iommu", "model", model)?;
    let domain = xml::set_attribute(&domain, "devices/iommu/driver", "intremap", "on")?;
    Ok(Some(xml::set_attribute(&domain, "devices/iommu/driver", "caching_mode", "on")?))
}

fn main() -> ExitCode {
    Worker::new("iommu").version("1.0.0").on_define_domain(on_define_domain).run()
}
