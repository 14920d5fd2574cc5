//! A network binding plugin: connects a VM to the pod network with passt, as KubeVirt's own plugin
//! does. docs/network-binding.md says how to register it. `KubeVirt` starts one sidecar for each
//! plugin of a VM, with the plugin's name in `NETWORK_BINDING_PLUGIN_NAME`.

use std::{collections::BTreeSet, process::ExitCode};

use kubevirt_hook::serde_json::Value;
use kubevirt_hook::xml::{Document, Element};
use kubevirt_hook::{ensure, Call, Refused, Result, Worker};

/// In pods with Istio's sidecar these ports are that sidecar's.
const ISTIO_PORTS: [u16; 10] =
    [15000, 15001, 15004, 15006, 15008, 15009, 15020, 15021, 15053, 15090];
/// `KubeVirt` copies this file into the log of the pod.
const LOG_FILE: &str = "/var/run/kubevirt/passt.log";

fn plugin() -> String {
    let name = std::env::var("NETWORK_BINDING_PLUGIN_NAME").unwrap_or_default();
    if name.is_empty() {
        "passt".to_owned()
    } else {
        name
    }
}

fn refused(why: &str) -> Refused {
    Refused::new(format!("network binding {}: {why}", plugin()))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// A text that is neither missing nor empty.
fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}

/// Returns the VM's interface on the pod network, and the name of the pod's interface.
fn bound(vmi: &Value) -> Result<(&Value, &str)> {
    let spec = &vmi["spec"];
    let network =
        items(&spec["networks"]).find(|network| !network["pod"].is_null()).ok_or_else(|| {
            refused("it connects to the pod network only, and spec.networks has none (pod: {})")
        })?;
    let name = text(&network["name"]).unwrap_or_default();
    let named = |list| items(list).find(|item| item["name"] == name);
    let interface = named(&spec["domain"]["devices"]["interfaces"]).ok_or_else(|| {
        let why = "no interface in spec.domain.devices is named";
        refused(&format!("{why} {name}, as the pod network is"))
    })?;
    if interface["binding"]["name"] != plugin() {
        let why = format!(
            "interface {name} is on the pod network and has another binding; no other interface \
             can use this one, so set binding: {{name: {}}} there",
            plugin()
        );
        return Err(refused(&why).into());
    }
    let status = named(&vmi["status"]["interfaces"]);
    let pod_interface = status.and_then(|it| text(&it["podInterfaceName"])).ok_or_else(|| {
        let why = "the VM's status does not say which interface of the pod is on network";
        let cause = "so KubeVirt is not ready or too old for this binding";
        refused(&format!("{why} {name} (podInterfaceName), {cause}"))
    })?;
    Ok((interface, pod_interface))
}

/// If the VM names no ports, passt forwards all of them; otherwise those only.
fn add_port_forwards(domain: Element, interface: &Value, istio: bool) -> Result<()> {
    let ports = |wanted: &str| -> Vec<_> {
        let of =
            |port: &&Value| text(&port["protocol"]).unwrap_or("tcp").eq_ignore_ascii_case(wanted);
        items(&interface["ports"]).filter(of).map(|port| port["port"].to_string()).collect()
    };
    let (tcp, udp) = (ports("tcp"), ports("udp"));
    let reserved = if istio { &ISTIO_PORTS[..] } else { &[] };
    let all = tcp.is_empty() && udp.is_empty() && reserved.is_empty();
    for (proto, reserved, ports) in [("tcp", reserved, tcp), ("udp", &[], udp)] {
        if !all && ports.is_empty() && reserved.is_empty() {
            continue;
        }
        let forward = domain.append(("portForward[@proto=?]", [proto]))?;
        for port in reserved {
            forward.append(("range[@start=?][@exclude='yes']", [port.to_string()]))?;
        }
        for port in ports {
            forward.append(("range[@start=?]", [port]))?;
        }
    }
    Ok(())
}

/// Splits an address such as 0000:81:11.1.
fn pci_address(address: &str) -> Option<[String; 4]> {
    let (start, function) = address.rsplit_once('.')?;
    let parts: Vec<_> = start.split(':').chain([function]).collect();
    let fits = |(part, digits): (&&str, usize)| {
        part.len() == digits && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let valid = parts.iter().zip([4, 2, 2, 1]).all(fits) && function < "8";
    let parts: [&str; 4] = parts.try_into().ok().filter(|_| valid)?;
    Some(parts.map(|part| format!("0x{part}")))
}

/// Adds the contents of the domain's interface.
fn fill(domain: Element, call: &Call) -> Result<()> {
    let (interface, pod_interface) = bound(call.vmi())?;
    let name = text(&interface["name"]).unwrap_or_default();
    let transitional = call.vmi().at("spec.domain.devices.useVirtioTransitional");
    let model = match text(&interface["model"]).unwrap_or("virtio") {
        "virtio" if transitional == Some(&Value::Bool(true)) => "virtio-transitional",
        "virtio" => "virtio-non-transitional",
        other => other,
    };
    domain.append(("source[@dev=?]", [pod_interface]))?;
    domain.append(("model[@type=?]", [model]))?;
    if let Some(mac) = text(&interface["macAddress"]) {
        domain.append(("mac[@address=?]", [mac]))?;
    }
    if let Some(address) = text(&interface["pciAddress"]) {
        let places = pci_address(address).ok_or_else(|| {
            let why = "is not an address such as 0000:81:11.1";
            refused(&format!("pciAddress of interface {name} {why}"))
        })?;
        let step = "address[@type='pci'][@domain=?][@bus=?][@slot=?][@function=?]";
        domain.append((step, places))?;
    }
    if let Some(index) = interface["acpiIndex"].as_u64().filter(|index| *index > 0) {
        domain.append(("acpi[@index=?]", [index.to_string()]))?;
    }
    domain.append(("alias[@name=?]", [format!("ua-{name}")]))?;
    domain.append(("backend[@type='passt'][@logFile=?]", [LOG_FILE]))?;
    let istio = call.vmi().annotation("sidecar.istio.io/inject");
    add_port_forwards(domain, interface, istio.is_some_and(|it| it.eq_ignore_ascii_case("true")))
}

/// Returns whether two elements mean the same. `KubeVirt` writes elements in another order.
fn same(one: Element, other: Element) -> Result<bool> {
    let attributes = |it: Element| it.attributes().into_iter().collect::<BTreeSet<_>>();
    let (children, others) = (one.find_all("*")?, other.find_all("*")?);
    let is_alike = one.name() == other.name() && attributes(one) == attributes(other);
    if !is_alike || children.len() != others.len() {
        return Ok(false);
    }
    for child in children {
        let mut found = false;
        for other in &others {
            found = found || same(child, *other)?;
        }
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Puts the interface into the domain, in place of one with its alias.
fn put_interface(call: &Call, doc: &Document) -> Result<()> {
    const INTERFACE: &str = "interface[@type='vhostuser']";
    let wanted = Document::parse("<interface type='vhostuser'/>")?;
    fill(wanted.root(), call)?;
    let name = |interface: Element| -> Result<Option<String>> {
        let alias = interface.find("alias")?.map(|alias| alias.get("name")).transpose()?;
        Ok(alias.flatten().map(|name| name.strip_prefix("ua-").unwrap_or(&name).to_owned()))
    };
    for there in doc.find_all("devices/interface")? {
        if name(there)? == name(wanted.root())? {
            if !same(there, wanted.root())? {
                fill(there.insert_before(INTERFACE)?, call)?;
                there.remove()?;
            }
            return Ok(());
        }
    }
    fill(doc.ensure("devices")?.append(INTERFACE)?, call)
}

fn edit_domain(call: &Call, doc: &Document) -> Result<()> {
    put_interface(call, doc)?;
    if let Some(access) = doc.find("memoryBacking/access")? {
        let why = "passt needs memory with access mode shared, and another hook has set another";
        let is_shared = access.get("mode")?.as_deref() == Some("shared");
        ensure!(is_shared, "network binding {}: {why}", plugin());
    }
    if doc.find("memoryBacking")?.is_none() {
        let memory = doc.append("memoryBacking")?;
        memory.append("access[@mode='shared']")?;
        memory.append("source[@type='memfd']")?;
    }
    Ok(())
}

fn main() -> ExitCode {
    Worker::new("network-binding").version("1.0.0").edit_domain(edit_domain).run()
}
