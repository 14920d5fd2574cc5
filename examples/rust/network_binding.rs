//! A network binding plugin: connects a VM to the pod network with passt, as KubeVirt's own plugin
//! does. docs/network-binding.md says how to register it. `KubeVirt` starts one sidecar for each
//! plugin of a VM, with the plugin's name in `NETWORK_BINDING_PLUGIN_NAME`.

use std::{collections::BTreeSet, ops::Range, process::ExitCode};

use kubevirt_hook::serde_json::Value;
use kubevirt_hook::xml::{self, roxmltree::Node, Changes};
use kubevirt_hook::{Call, Refusal, Result, Worker};

/// In pods with Istio's sidecar these ports are that sidecar's.
const ISTIO_PORTS: [u16; 10] =
    [15000, 15001, 15004, 15006, 15008, 15009, 15020, 15021, 15053, 15090];
/// `KubeVirt` copies this file into the log of the pod.
const LOG_FILE: &str = "/var/run/kubevirt/passt.log";
const MEMORY: &str = "<memoryBacking><access mode=\"shared\"></access>\
                      <source type=\"memfd\"></source></memoryBacking>";

fn plugin() -> String {
    let name = std::env::var("NETWORK_BINDING_PLUGIN_NAME").unwrap_or_default();
    if name.is_empty() {
        "passt".to_owned()
    } else {
        name
    }
}

fn refused(why: &str) -> Refusal {
    Refusal::new(format!("network binding {}: {why}", plugin()))
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

/// Writes an element. The content is XML.
fn element(name: &str, attributes: &[(&str, &str)], content: &str) -> String {
    let attribute = |(name, value): &(&str, &str)| format!(" {name}=\"{}\"", xml::escape(value));
    let attributes: String = attributes.iter().map(attribute).collect();
    format!("<{name}{attributes}>{content}</{name}>")
}

/// If the VM names no ports, passt forwards all of them; otherwise those only.
fn port_forwards(interface: &Value, istio: bool) -> String {
    let reserved = ISTIO_PORTS
        .iter()
        .filter(|_| istio)
        .map(|port| element("range", &[("start", &port.to_string()), ("exclude", "yes")], ""));
    let ranges = |wanted: &str| -> String {
        let ports = items(&interface["ports"])
            .filter(|port| text(&port["protocol"]).unwrap_or("tcp").eq_ignore_ascii_case(wanted));
        ports.map(|it| element("range", &[("start", &it["port"].to_string())], "")).collect()
    };
    let (tcp, udp) = (reserved.collect::<String>() + &ranges("tcp"), ranges("udp"));
    let all = tcp.is_empty() && udp.is_empty();
    let forwards = [("tcp", tcp), ("udp", udp)].into_iter();
    let forwards = forwards.filter(|(_, ranges)| all || !ranges.is_empty());
    forwards.map(|(proto, ranges)| element("portForward", &[("proto", proto)], &ranges)).collect()
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

/// Writes the domain's interface.
fn wanted(call: &Call) -> Result<String> {
    let (interface, pod_interface) = bound(call.vmi())?;
    let name = text(&interface["name"]).unwrap_or_default();
    let transitional = &call.vmi()["spec"]["domain"]["devices"]["useVirtioTransitional"];
    let model = match text(&interface["model"]).unwrap_or("virtio") {
        "virtio" if transitional.as_bool() == Some(true) => "virtio-transitional",
        "virtio" => "virtio-non-transitional",
        other => other,
    };
    let mut all = element("source", &[("dev", pod_interface)], "");
    all += &element("model", &[("type", model)], "");
    if let Some(mac) = text(&interface["macAddress"]) {
        all += &element("mac", &[("address", mac)], "");
    }
    if let Some(address) = text(&interface["pciAddress"]) {
        let [domain, bus, slot, function] = &pci_address(address).ok_or_else(|| {
            let why = "is not an address such as 0000:81:11.1";
            refused(&format!("pciAddress of interface {name} {why}"))
        })?;
        let places = [("domain", &**domain), ("bus", bus), ("slot", slot), ("function", function)];
        all += &element("address", &[&[("type", "pci")], &places[..]].concat(), "");
    }
    if let Some(index) = interface["acpiIndex"].as_u64().filter(|index| *index > 0) {
        all += &element("acpi", &[("index", &index.to_string())], "");
    }
    all += &element("alias", &[("name", &format!("ua-{name}"))], "");
    all += &element("backend", &[("type", "passt"), ("logFile", LOG_FILE)], "");
    let istio = call.annotation("sidecar.istio.io/inject");
    all += &port_forwards(interface, istio.is_some_and(|it| it.eq_ignore_ascii_case("true")));
    Ok(element("interface", &[("type", "vhostuser")], &all))
}

/// Returns whether two elements mean the same. `KubeVirt` writes elements in another order.
fn same(one: Node<'_, '_>, other: Node<'_, '_>) -> bool {
    fn attributes<'a>(node: Node<'a, '_>) -> BTreeSet<(&'a str, &'a str)> {
        node.attributes().map(|it| (it.name(), it.value())).collect()
    }
    let elements = |node: Node<'_, '_>| node.children().filter(Node::is_element).count();
    one.tag_name() == other.tag_name()
        && attributes(one) == attributes(other)
        && elements(one) == elements(other)
        && one
            .children()
            .filter(Node::is_element)
            .all(|child| other.children().filter(Node::is_element).any(|other| same(child, other)))
}

/// Returns the domain with the interface, which takes the place of one with its alias.
fn with_interface(domain: &str, interface: &str) -> Result<String> {
    let (tree, wanted) = (xml::parse(domain)?, xml::parse(interface)?);
    let (root, wanted) = (tree.root_element(), wanted.root_element());
    let alias = |node| xml::find(node, "alias").and_then(|alias| alias.attribute("name"));
    let name = |node| alias(node).map(|name| name.strip_prefix("ua-").unwrap_or(name));
    let devices = xml::find(root, "devices");
    let mut children = devices.into_iter().flat_map(|devices| devices.children());
    let there = children.find(|it| it.has_tag_name("interface") && name(*it) == name(wanted));
    let mut changes = Changes::of(domain);
    match (there, devices) {
        (Some(there), _) if same(there, wanted) => {}
        (Some(there), _) => {
            let Range { start, end } = there.range();
            return Ok([&domain[..start], interface, &domain[end..]].concat());
        }
        (None, Some(devices)) => changes.append(devices, interface),
        (None, None) => changes.append(root, &element("devices", &[], interface)),
    }
    Ok(changes.apply())
}

fn on_define_domain(call: &Call, domain: &str) -> Result<Option<String>> {
    let domain = with_interface(domain, &wanted(call)?)?;
    let (tree, mut changes) = (xml::parse(&domain)?, Changes::of(&domain));
    let root = tree.root_element();
    let access = xml::find(root, "memoryBacking/access");
    if access.is_some_and(|access| access.attribute("mode") != Some("shared")) {
        let why = "passt needs memory with access mode shared, and another hook has set another";
        return Err(refused(why).into());
    }
    if xml::find(root, "memoryBacking").is_none() {
        changes.append(root, MEMORY);
    }
    Ok(Some(changes.apply()))
}

fn main() -> ExitCode {
    Worker::new("network-binding").version("1.0.0").on_define_domain(on_define_domain).run()
}
