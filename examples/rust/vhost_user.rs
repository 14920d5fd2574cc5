//! Adds a disk that a vhost-user back end on the node serves: the label `vhost-user.example/disk:
//! NAME` of a VM adds /var/run/vhost-user/NAME.sock.

use std::process::ExitCode;

use kubevirt_hook::{ensure, refuse, xml::Document, Call, Level, Result, Worker};

const LABEL: &str = "vhost-user.example/disk";

fn edit_domain(call: &Call, doc: &Document) -> Result<()> {
    let Some(name) = call.vmi().label(LABEL) else { return Ok(()) };
    let pages = call.vmi().at("spec.domain.memory.hugepages");
    ensure!(pages.is_some(), "label {LABEL}: a vhost-user disk needs spec.domain.memory.hugepages");
    let eviction = call.vmi().at("spec.evictionStrategy").and_then(|it| it.as_str());
    if matches!(eviction, Some("LiveMigrate" | "LiveMigrateIfPossible")) {
        call.log(Level::Warning, "a VM with a vhost-user disk cannot be live-migrated");
    }
    doc.ensure("memoryBacking/access")?.set("mode", "shared")?;
    for cell in doc.find_all("cpu/numa/cell")? {
        cell.set("memAccess", "shared")?;
    }
    let socket = format!("/var/run/vhost-user/{name}.sock");
    if doc.find(("devices/disk/source[@path=?]", [&socket]))?.is_some() {
        return Ok(());
    }
    let mut used = Vec::new();
    for target in doc.find_all("devices/disk/target")? {
        used.extend(target.get("dev")?);
    }
    let Some(free) = ('a'..='z').map(|it| format!("vd{it}")).find(|it| !used.contains(it)) else {
        refuse!("label {LABEL}: no name from vda to vdz is free");
    };
    let disk = doc.ensure("devices")?.append("disk[@type='vhostuser'][@device='disk']")?;
    disk.append("driver[@name='qemu'][@type='raw']")?;
    disk.append(("source[@type='unix'][@path=?]", [socket]))?;
    disk.append(("target[@dev=?][@bus='virtio']", [free]))?;
    Ok(())
}

fn main() -> ExitCode {
    Worker::new("vhost-user").version("1.0.0").edit_domain(edit_domain).run()
}
