//! Passes options in the VM's annotation to QEMU, for example {"-global": "ICH9-LPC.disable_s3=0"}.
//! Only options in ALLOWED pass: others, such as -drive, give access to files of the VM's pod.

use std::collections::BTreeMap;
use std::process::ExitCode;

use kubevirt_hook::{serde_json, xml, Call, Refusal, Result, Worker};

const ANNOTATION: &str = "qemu.vm.kubevirt.io/options";
const ALLOWED: [&str; 3] = ["-boot", "-global", "-rtc"];
const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

fn on_define_domain(call: &Call, domain: &str) -> Result<Option<String>> {
    let Some(annotation) = call.annotation(ANNOTATION) else { return Ok(None) };
    let why = format!("annotation {ANNOTATION}: not a JSON object of strings for {ALLOWED:?}");
    let options: Option<BTreeMap<String, String>> = serde_json::from_str(annotation).ok();
    let fits = |it: (&String, &String)| ALLOWED.contains(&&**it.0) && xml::is_plain(it.1);
    let options = options.filter(|it| it.iter().all(fits)).ok_or(Refusal::new(why))?;
    let (document, mut changes) = (xml::parse(domain)?, xml::Changes::of(domain));
    let args = document.descendants().filter(|node| node.has_tag_name((QEMU, "arg")));
    let args: Vec<_> = args.filter_map(|arg| arg.attribute("value")).collect();
    let missing = options.iter().filter(|it| !args.windows(2).any(|args| args == [it.0, it.1]));
    let arg = |value: &String| format!("<qemu:arg value=\"{}\"/>", xml::escape(value));
    let added: String = missing.map(|(name, value)| arg(name) + &arg(value)).collect();
    if added.is_empty() {
        return Ok(None); // for example, a later call of the same boot
    }
    let root = document.root_element();
    changes.declare(root, "qemu", QEMU);
    match root.children().find(|node| node.has_tag_name((QEMU, "commandline"))) {
        Some(line) => changes.append(line, &added),
        None => changes.append(root, &format!("<qemu:commandline>{added}</qemu:commandline>")),
    }
    Ok(Some(changes.apply()))
}

fn main() -> ExitCode {
    Worker::new("qemu-arguments").version("1.0.0").on_define_domain(on_define_domain).run()
}
