//! Boots the VM from the disk that its annotation names. What came before it comes right after.

use std::process::ExitCode;

use kubevirt_hook::xml::{self, roxmltree::Node, Changes};
use kubevirt_hook::{Call, Refusal, Result, Worker};

const ANNOTATION: &str = "boot.vm.kubevirt.io/disk";

fn on_define_domain(call: &Call, domain: &str) -> Result<Option<String>> {
    let Some(name) = call.annotation(ANNOTATION) else { return Ok(None) };
    let (document, mut changes) = (xml::parse(domain)?, Changes::of(domain));
    let alias = format!("ua-{name}"); // as KubeVirt names disks
    let named = |node: Node| node.has_tag_name("alias") && node.attribute("name") == Some(&alias);
    let mut disks = document.descendants().filter(|node| node.has_tag_name("disk"));
    let disk = disks.find(|disk| disk.children().any(named));
    let disk = disk.ok_or(Refusal::new(format!("annotation {ANNOTATION}: no such disk")))?;

    let order = |boot: Node| boot.attribute("order")?.parse::<u32>().ok();
    let own = disk.children().find(|node| node.has_tag_name("boot"));
    let before = own.and_then(order).unwrap_or(u32::MAX);
    for boot in document.descendants().filter(|node| node.has_tag_name("boot")) {
        match order(boot) {
            // <boot dev='hd'/> of <os>, which libvirt does not take beside orders.
            None => changes.remove(boot),
            Some(_) if own == Some(boot) => changes.set_attribute(boot, "order", "1"),
            Some(n) if n < before => changes.set_attribute(boot, "order", &(n + 1).to_string()),
            Some(_) => {}
        }
    }
    if own.is_none() {
        changes.append(disk, "<boot order=\"1\"/>");
    }
    Ok(Some(changes.apply()))
}

fn main() -> ExitCode {
    Worker::new("boot-disk").version("1.0.0").on_define_domain(on_define_domain).run()
}
