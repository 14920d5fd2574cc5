//! Emulates an IOMMU for guests that isolate devices themselves (nested virtualization, DPDK). The
//! VM's annotation enables it. The only model is intel, on machine type q35.

use std::process::ExitCode;

use kubevirt_hook::{ensure, xml::Document, Call, Result, Worker};

const ANNOTATION: &str = "iommu.vm.kubevirt.io/model";

fn edit_domain(call: &Call, doc: &Document) -> Result<()> {
    let Some(model) = call.vmi().annotation(ANNOTATION) else { return Ok(()) };
    let machine = doc.find("os/type")?.map(|it| it.get("machine")).transpose()?.flatten();
    let is_q35 = machine.is_some_and(|machine| machine.contains("q35"));
    let fits = model == "intel" && is_q35;
    ensure!(fits, "annotation {ANNOTATION}: only intel on machine type q35 works");
    // Interrupt remapping needs QEMU's I/O APIC instead of the kernel's.
    doc.ensure("features/ioapic")?.set("driver", "qemu")?;
    let iommu = doc.ensure("devices/iommu")?.set("model", model)?;
    iommu.ensure("driver")?.set("intremap", "on")?.set("caching_mode", "on")?;
    Ok(())
}

fn main() -> ExitCode {
    Worker::new("iommu").version("1.0.0").edit_domain(edit_domain).run()
}
