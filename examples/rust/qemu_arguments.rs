//! Passes options in the VM's annotation to QEMU, for example {"-global": "ICH9-LPC.disable_s3=0"}.
//! Only options in ALLOWED pass: others, such as -drive, give access to files of the VM's pod.

use std::collections::BTreeMap;
use std::process::ExitCode;

use kubevirt_hook::{is_plain, refuse, serde_json, xml::Document, Call, Result, Worker};

const ANNOTATION: &str = "qemu.vm.kubevirt.io/options";
const ALLOWED: [&str; 3] = ["-boot", "-global", "-rtc"];

fn edit_domain(call: &Call, doc: &Document) -> Result<()> {
    let Some(annotation) = call.vmi().annotation(ANNOTATION) else { return Ok(()) };
    let options: Option<BTreeMap<String, String>> = serde_json::from_str(annotation).ok();
    let fits = |it: (&String, &String)| ALLOWED.contains(&&**it.0) && is_plain(it.1);
    let Some(options) = options.filter(|it| it.iter().all(fits)) else {
        refuse!("annotation {ANNOTATION}: not a JSON object of strings for {ALLOWED:?}");
    };
    let mut args = Vec::new();
    for arg in doc.find_all("qemu:commandline/qemu:arg")? {
        args.extend(arg.get("value")?);
    }
    for (name, value) in &options {
        // There, for example, in a later call of the same boot.
        if !args.windows(2).any(|args| args == [&**name, &**value]) {
            let line = doc.ensure("qemu:commandline")?;
            line.append(("qemu:arg[@value=?]", [name]))?;
            line.append(("qemu:arg[@value=?]", [value]))?;
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    Worker::new("qemu-arguments").version("1.0.0").edit_domain(edit_domain).run()
}
