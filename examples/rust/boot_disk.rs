//! Boots a VM from the disks in its annotation, for example "installer, rootdisk": names of
//! spec.domain.devices.disks. Other bootable devices come after them.

use std::process::ExitCode;

use kubevirt_hook::{refuse, xml::Document, xml::Element, Call, Result, Worker};

const ANNOTATION: &str = "bootdisk.vm.kubevirt.io/order";

fn edit_domain(call: &Call, doc: &Document) -> Result<()> {
    let Some(names) = call.vmi().annotation(ANNOTATION) else { return Ok(()) };
    let mut first = Vec::new();
    for name in names.split(',') {
        // The alias of a disk in KubeVirt is "ua-" and the disk's name.
        let alias = ("devices/disk/alias[@name=?]", [format!("ua-{}", name.trim())]);
        match doc.find(alias)?.and_then(Element::parent) {
            Some(disk) if !first.contains(&disk) => first.push(disk),
            _ => refuse!("annotation {ANNOTATION}: name disks of the VM, each of them once"),
        }
    }
    // libvirt allows either an order or the boot elements of <os>.
    doc.find_all("os/boot")?.into_iter().try_for_each(Element::remove)?;
    let mut rest = Vec::new();
    for boot in doc.find_all("devices/*/boot")? {
        let order = boot.get("order")?.and_then(|order| order.parse::<u32>().ok());
        let device = boot.parent().filter(|device| !first.contains(device));
        rest.extend(order.zip(device));
    }
    rest.sort_by_key(|(order, _)| *order);
    first.extend(rest.into_iter().map(|(_, device)| device));
    for (device, number) in first.into_iter().zip(1..) {
        device.ensure("boot")?.set("order", number.to_string())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    Worker::new("boot-disk").version("1.0.0").edit_domain(edit_domain).run()
}
