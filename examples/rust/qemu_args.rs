//! Passes arguments to QEMU that libvirt has no element for, from the VM's annotation: a JSON array of
//! strings, such as `["-fw_cfg", "name=opt/org.example/site,string=north"]`.

use std::process::ExitCode;

use kubevirt_hook::xml::{self, Changes};
use kubevirt_hook::{serde_json, Call, Refusal, Result, Worker};

const ANNOTATION: &str = "qemu.vm.kubevirt.io/args";
const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

fn on_define_domain(call: &Call, domain: &str) -> Result<Option<String>> {
    let Some(annotation) = call.annotation(ANNOTATION) else { return Ok(None) };
    let why = format!("annotation {ANNOTATION}: not a JSON array of strings in plain text");
    let args: Option<Vec<String>> = serde_json::from_str(annotation).ok();
    let args = args.filter(|args| args.iter().all(|arg| xml::is_plain(arg)));
    let args = args.ok_or(Refusal::new(why))?;
    let (document, mut changes) = (xml::parse(domain)?, Changes::of(domain));
    let there = document.descendants().filter(|node| node.has_tag_name((QEMU, "arg")));
    let there: Vec<_> = there.filter_map(|arg| arg.attribute("value")).collect();
    if args.is_empty() || there.windows(args.len()).any(|there| there == args) {
        return Ok(None); // or a later call of the same boot, on our own result
    }
    let root = document.root_element();
    if root.lookup_namespace_uri(Some("qemu")).is_none() {
        changes.set_attribute(root, "xmlns:qemu", QEMU);
    }
    let arg = |arg: &String| format!("<qemu:arg value=\"{}\"/>", xml::escape(arg));
    let added: String = args.iter().map(arg).collect();
    match root.children().find(|node| node.has_tag_name((QEMU, "commandline"))) {
        Some(line) => changes.append(line, &added),
        None => changes.append(root, &format!("<qemu:commandline>{added}</qemu:commandline>")),
    }
    Ok(Some(changes.apply()))
}

fn main() -> ExitCode {
    Worker::new("qemu-args").version("1.0.0").on_define_domain(on_define_domain).run()
}
