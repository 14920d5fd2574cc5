//! Boots a VM from the disks in its annotation, for example "installer, rootdisk": names of
//! spec.domain.devices.disks. Other bootable devices come after them.

use std::{collections::BTreeMap, process::ExitCode};

use kubevirt_hook::xml::{self, roxmltree::Node, Changes};
use kubevirt_hook::{Call, Refusal, Result, Worker};

const ANNOTATION: &str = "bootdisk.vm.kubevirt.io/order";

fn on_define_domain(call: &Call, domain: &str) -> Result<Option<String>> {
    let Some(names) = call.annotation(ANNOTATION) else { return Ok(None) };
    let (tree, mut changes) = (xml::parse(domain)?, Changes::of(domain));
    let all = |path| xml::find(tree.root_element(), path).into_iter().flat_map(|it| it.children());
    // The alias of a disk in KubeVirt is "ua-" and the disk's name.
    let alias = |device| xml::find(device, "alias")?.attribute("name");
    let disks = all("devices").filter(|device| device.has_tag_name("disk"));
    let mut disks: BTreeMap<_, _> = disks.filter_map(|disk| Some((alias(disk)?, disk))).collect();
    let first = names.split(',').map(|name| disks.remove(&*format!("ua-{}", name.trim())));
    let why = format!("annotation {ANNOTATION}: name disks of the VM, each of them once");
    let first = first.collect::<Option<Vec<_>>>().ok_or(Refusal::new(why))?;
    // libvirt allows either an order or the boot elements of <os>.
    all("os").filter(|it| it.has_tag_name("boot")).for_each(|it| changes.remove(it));
    let order = |device: &Node| xml::find(*device, "boot")?.attribute("order")?.parse::<u32>().ok();
    let rest = all("devices").filter(|it| order(it).is_some() && !first.contains(it));
    let mut rest: Vec<_> = rest.collect();
    rest.sort_by_key(order);
    for (device, number) in first.iter().copied().chain(rest).zip(1..) {
        match xml::find(device, "boot") {
            Some(boot) => changes.set_attribute(boot, "order", &format!("{number}")),
            None => changes.append(device, &format!("<boot order=\"{number}\"/>")),
        }
    }
    Ok(Some(changes.apply()))
}

fn main() -> ExitCode {
    Worker::new("boot-disk").version("1.0.0").on_define_domain(on_define_domain).run()
}
