//! Boots a VM from the disks that its annotation names, such as "installer, rootdisk": names of
//! spec.domain.devices.disks. What else can boot comes behind.

use std::collections::BTreeMap;
use std::process::ExitCode;

use kubevirt_hook::xml::{self, roxmltree::Node, Changes};
use kubevirt_hook::{Call, Refusal, Result, Worker};

const ANNOTATION: &str = "bootdisk.vm.kubevirt.io/order";

fn on_define_domain(call: &Call, domain: &str) -> Result<Option<String>> {
    let Some(names) = call.annotation(ANNOTATION) else { return Ok(None) };
    let (document, mut changes) = (xml::parse(domain)?, Changes::of(domain));
    let all = |name| document.descendants().filter(move |node: &Node| node.has_tag_name(name));
    // KubeVirt puts "ua-" before the name of a disk to make its alias.
    let aliases = all("alias").filter_map(|it| Some((it.attribute("name")?, it.parent()?)));
    let mut disks: BTreeMap<_, _> = aliases.filter(|it| it.1.has_tag_name("disk")).collect();
    let first = names.split(',').map(|name| disks.remove(&*format!("ua-{}", name.trim())));
    let why = format!("annotation {ANNOTATION}: name disks of the VM, and each of them once");
    let first = first.collect::<Option<Vec<_>>>().ok_or(Refusal::new(why))?;
    let order = |boot: &Node| boot.attribute("order").and_then(|text| text.parse::<u32>().ok());
    // Without an order it is one of <os>. libvirt takes either those or an order.
    all("boot").filter(|boot| order(boot).is_none()).for_each(|boot| changes.remove(boot));
    let mut boots: Vec<_> = all("boot").filter(|boot| order(boot).is_some()).collect();
    boots.sort_by_key(order);
    let rest = boots.iter().filter_map(Node::parent).filter(|device| !first.contains(device));
    for (device, number) in first.iter().copied().chain(rest).zip(1..) {
        match boots.iter().find(|boot| boot.parent() == Some(device)) {
            Some(boot) => changes.set_attribute(*boot, "order", &format!("{number}")),
            None => changes.append(device, &format!("<boot order=\"{number}\"/>")),
        }
    }
    Ok(Some(changes.apply()))
}

fn main() -> ExitCode {
    Worker::new("boot-disk").version("1.0.0").on_define_domain(on_define_domain).run()
}
