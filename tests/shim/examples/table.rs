//! What the examples do, to the byte: documents as KubeVirt and libvirt write them, before and after
//! each hook, and the values that each hook refuses.
//!
//! A row holds for every language. Where languages differ (in how they write an empty element, or in
//! the order of an object's fields) the row says so.

use serde_json::{Value, json};

use crate::support::{Language, read};

/// One example.
pub struct Example {
    pub name: &'static str,
    pub hook: &'static str,
    pub annotation: &'static str,
    pub cases: Vec<Case>,
    pub refusals: Vec<Refusal>,
}

/// A document before and after the hook.
pub struct Case {
    pub what: &'static str,
    pub value: &'static str,
    pub sent: String,
    pub expected: String,
    /// Whether the answer may be other JSON text with the same value.
    pub as_json: bool,
}

/// A value of the annotation that the hook refuses, and the reason.
pub struct Refusal {
    pub value: &'static str,
    pub sent: String,
    pub reason: &'static str,
}

impl Case {
    /// A document in which the hook replaces these pieces.
    fn edit(what: &'static str, value: &'static str, sent: &str, pieces: &[(&str, &str)]) -> Self {
        Self { what, value, sent: sent.to_owned(), expected: with(sent, pieces), as_json: false }
    }
}

/// Refuses each of these values, with one reason.
fn refuse(values: &[&'static str], sent: &str, reason: &'static str) -> Vec<Refusal> {
    values.iter().map(|value| Refusal { value, sent: sent.to_owned(), reason }).collect()
}

/// A document with these pieces replaced. Each of them occurs once.
fn with(document: &str, pieces: &[(&str, &str)]) -> String {
    pieces.iter().fold(document.to_owned(), |document, (old, new)| {
        assert_eq!(document.matches(old).count(), 1, "{old}");
        document.replace(old, new)
    })
}

/// The domain of KubeVirt's API for sidecars, which indents with tabs.
pub fn kubevirt_domain() -> String {
    read("crates/hookctl/src/samples/domain.xml")
}

/// The same domain as the Plugins API sends it.
fn plugin_domain() -> String {
    kubevirt_domain().replace('\t', "  ")
}

/// A domain as libvirt writes it, with the metadata of other programs.
fn libvirt_domain() -> String {
    read("tests/fixtures/domains/libvirt.xml")
}

/// Whether the example writes what it adds as `docs/editing-xml.md` says.
fn follows_the_page(language: Language) -> bool {
    matches!(language, Language::Python | Language::Rust | Language::Go)
}

/// An element that a hook adds.
fn empty(name: &str, attributes: &str) -> String {
    format!("<{name} {attributes}></{name}>")
}

/// Children of a new element: on their own lines, if the language writes them so. Before the element
/// stands this white space, and one level is that much more.
fn inside(language: Language, before: &str, level: &str, children: &[&str]) -> String {
    if !follows_the_page(language) {
        return children.concat();
    }
    let lines = children.iter().map(|child| format!("\n{before}{level}{child}"));
    lines.chain([format!("\n{before}")]).collect()
}

pub fn smbios(language: Language) -> Example {
    let (kubevirt, plugin) = (kubevirt_domain(), plugin_domain());
    let entry_in = |text: &str, level: &str| {
        let entry = format!("<entry name=\"manufacturer\">{text}</entry>");
        format!("<baseBoard>{}</baseBoard>", inside(language, &level.repeat(2), level, &[&entry]))
    };
    let (entry, spaced) = (|text| entry_in(text, "\t"), |text| entry_in(text, "  "));
    let smbios = inside(language, "  ", "  ", &["<smbios mode=\"sysinfo\"></smbios>"]);
    let sysinfo = inside(language, "  ", "  ", &[&spaced("ACME")]);
    let new = format!("<os>{smbios}</os>\n  <sysinfo type=\"smbios\">{sysinfo}</sysinfo>\n");
    let board = "<baseBoard></baseBoard>";
    let bare = "<domain type='kvm'>\n  <name>vm</name>\n  <os/>\n</domain>";
    let mut cases = vec![
        Case::edit("tabs", "ACME Ltd", &kubevirt, &[(board, &entry("ACME Ltd"))]),
        Case::edit("spaces", "ACME Ltd", &plugin, &[(board, &spaced("ACME Ltd"))]),
    ];
    let mut refusals = Vec::new();
    // Those without an SDK escape differently, and do not look for every form of a domain.
    if !matches!(language, Language::Perl | Language::Shell) {
        cases.extend([
            Case::edit(
                "a value to escape, and tabs",
                "Gebr. <Müller> & Söhne",
                &kubevirt,
                &[(board, &entry("Gebr. &lt;Müller&gt; &amp; Söhne"))],
            ),
            Case::edit(
                "a value to escape, and spaces",
                "Bell & Öre <3",
                &plugin,
                &[(board, &spaced("Bell &amp; Öre &lt;3"))],
            ),
            Case::edit("neither <smbios> nor <sysinfo>", "ACME", bare, &[("<os/>\n", &new)]),
            Case::edit(
                "libvirt, and another manufacturer",
                "Bell & Öre <3",
                &libvirt_domain(),
                &[(">Tin Ferry<", ">Bell &amp; Öre &lt;3<")],
            ),
        ]);
        let reason = "a character that SMBIOS cannot hold";
        refusals = refuse(&["a\nb", "Bell\u{7}"], &kubevirt, reason);
    }
    let annotation = "smbios.vm.kubevirt.io/baseBoardManufacturer";
    Example { name: "smbios", hook: "onDefineDomain", annotation, cases, refusals }
}

pub fn boot_disk(language: Language) -> Example {
    let kubevirt = kubevirt_domain();
    let (nic, root, seed) = (
        "<alias name=\"ua-default\"></alias>",
        "<alias name=\"ua-rootdisk\"></alias>",
        "<alias name=\"ua-cloudinitdisk\"></alias>",
    );
    let backing = "</backingStore>"; // the root disk's, and its last element
    let boot = |order: u32| empty("boot", &format!("order=\"{order}\""));
    let added = |last: &str, order| format!("{last}\n\t\t\t{}", boot(order));
    let there = |alias: &str, order: u32| format!("<boot order=\"{order}\"></boot>{alias}");
    let both = [(seed, added(seed, 1)), (backing, added(backing, 2))];
    let both: Vec<_> = both.iter().map(|(old, new)| (*old, new.as_str())).collect();
    let spaces: Vec<_> = both.iter().map(|(old, new)| (*old, new.replace('\t', "  "))).collect();
    let spaces: Vec<_> = spaces.iter().map(|(old, new)| (*old, new.as_str())).collect();
    // Numbers that do not sort as text, and an <os> with boot devices.
    let ordered = with(
        &kubevirt,
        &[
            (nic, &there(nic, 10)),
            (root, &there(root, 9)),
            ("hvm</type>", "hvm</type>\n\t\t<boot dev=\"hd\"></boot>"),
        ],
    );
    let reversed = with(&kubevirt, &[(nic, &there(nic, 2)), (root, &there(root, 1))]);
    let address = |bus: &str, boot: &str| {
        format!(
            "<address type='pci' domain='0x0000' bus='{bus}' slot='0x00' function='0x0'/>{boot}"
        )
    };
    let line = |order| format!("\n      {}", boot(order));
    let cases = vec![
        Case::edit("one disk", "cloudinitdisk", &kubevirt, &[(seed, &added(seed, 1))]),
        Case::edit("two disks, and tabs", "cloudinitdisk, rootdisk", &kubevirt, &both),
        Case::edit("two disks, and spaces", "cloudinitdisk, rootdisk", &plugin_domain(), &spaces),
        Case::edit(
            "orders of two digits, and boot devices",
            "cloudinitdisk",
            &ordered,
            &[
                (&there(nic, 10), &there(nic, 3)),
                (&there(root, 9), &there(root, 2)),
                ("\n\t\t<boot dev=\"hd\"></boot>", ""),
                (seed, &added(seed, 1)),
            ],
        ),
        Case::edit(
            "what boots already comes behind, in its order",
            "cloudinitdisk",
            &reversed,
            &[
                (&there(nic, 2), &there(nic, 3)),
                (&there(root, 1), &there(root, 2)),
                (seed, &added(seed, 1)),
            ],
        ),
        Case::edit(
            "libvirt, with boot devices",
            "cloudinitdisk,rootdisk",
            &libvirt_domain(),
            &[
                ("\n    <boot dev='hd'/>\n    <boot dev='network'/>", ""),
                (&address("0x04", ""), &address("0x04", &line(2))),
                (&address("0x05", ""), &address("0x05", &line(1))),
            ],
        ),
    ];
    let reason = match language {
        Language::Python => "name each disk once, out of rootdisk, cloudinitdisk",
        _ => "name disks of the VM, each of them once",
    };
    let values = ["", "datadisk", "default", "rootdisk,rootdisk", "rootdisk,nosuchdisk"];
    let refusals = refuse(&values, &kubevirt, reason);
    let annotation = "bootdisk.vm.kubevirt.io/order";
    Example { name: "boot_disk", hook: "onDefineDomain", annotation, cases, refusals }
}

pub fn qemu_arguments(language: Language) -> Example {
    let (kubevirt, plugin) = (kubevirt_domain(), plugin_domain());
    let arg = |value: &str| empty("qemu:arg", &format!("value=\"{value}\""));
    let option = |name: &str, value: &str| arg(name) + &arg(value);
    let global = option("-global", "a.b=&quot;&lt;&amp;&gt;");
    let rtc = option("-rtc", "base=localtime");
    let options = r#"{"-rtc": "base=localtime", "-global": "a.b=\"<&>"}"#;
    // Python keeps the order of the object, the others have an order of their own.
    let in_order = match language {
        Language::Python => [&rtc, &global],
        _ => [&global, &rtc],
    };
    let line = |inside: &str| format!("\n\t<qemu:commandline>{inside}</qemu:commandline>");
    // An option is two elements.
    let new = |options: [&String; 2]| {
        let elements = options.map(|option| option.replace("><qemu:arg", ">\0<qemu:arg"));
        let elements: Vec<_> = elements.iter().flat_map(|option| option.split('\0')).collect();
        inside(language, "\t", "\t", &elements)
    };
    let all = new(in_order);
    let (last, namespace) =
        ("</iothreads>", " xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\"");
    let added = |inside: &str| format!("{last}{}", line(inside));
    let plain = with(&kubevirt, &[(namespace, "")]);
    let there = format!("\n\t\t<qemu:arg value=\"-x\"/>{rtc}\n\t");
    let more = format!("\n\t\t<qemu:arg value=\"-x\"/>{rtc}{global}\n\t");
    let disable = option("-global", "ICH9-LPC.disable_s3=0");
    let wanted = added(&new([&disable, &rtc]));
    let kept = "string=kept'/>";
    let below = format!("{kept}\n    {disable}{rtc}").replace("><qemu:arg", ">\n    <qemu:arg");
    let (boot, root) = (option("-boot", "menu=on"), "<domain>");
    let inside = format!("<qemu:commandline>{boot}</qemu:commandline>");
    let minimal = if follows_the_page(language) {
        format!("<domain{namespace}>{inside}\n</domain>")
    } else {
        format!("<domain{namespace}>\n{inside}</domain>")
    };
    let both = r#"{"-global":"ICH9-LPC.disable_s3=0","-rtc":"base=localtime"}"#;
    let args = ["-global", "ICH9-LPC.disable_s3=0", "-rtc", "base=localtime"]
        .map(|value| format!("<arg value=\"{value}\"></arg>"))
        .concat();
    let unprefixed = namespace.replace(":qemu", "");
    let returned =
        with(&plugin, &[(last, &format!("{last}<commandline{unprefixed}>{args}</commandline>"))]);
    let returned = with(&returned, &[(namespace, "")]);
    let reversed = r#"{"-rtc":"base=localtime","-global":"ICH9-LPC.disable_s3=0"}"#;
    let mut cases = vec![
        Case::edit("values to escape", options, &kubevirt, &[(last, &added(&all))]),
        Case::edit(
            "no namespace",
            options,
            &plain,
            &[
                ("<domain type=\"kvm\"", &format!("<domain type=\"kvm\"{namespace}")),
                (last, &added(&all)),
            ],
        ),
        Case::edit(
            "one of the options is there",
            options,
            &with(&kubevirt, &[(last, &added(&there))]),
            &[(&line(&there), &line(&more))],
        ),
        Case::edit("tabs", both, &kubevirt, &[(last, &wanted)]),
        Case::edit("spaces", both, &plugin, &[(last, &wanted.replace('\t', "  "))]),
        Case::edit("libvirt", both, &libvirt_domain(), &[(kept, &below)]),
        Case::edit("its own result, as the Plugins API returns it", both, &returned, &[]),
        Case::edit(
            "nothing but a root",
            r#"{"-boot":"menu=on"}"#,
            "<domain>\n</domain>",
            &[(&format!("{root}\n</domain>"), &minimal)],
        ),
    ];
    match language {
        Language::Go => {
            cases.push(Case::edit("the other order", reversed, &kubevirt, &[(last, &wanted)]));
        }
        Language::Rust => cases.push(Case::edit("no options", "{}", &plain, &[])),
        _ => {}
    }
    // Which values are refused: those that are not objects, options that are not allowed, and values
    // that are not strings.
    let [no_object, not_allowed, no_string] = match language {
        Language::Python => {
            let strings = "allowed are strings for -boot, -global, -rtc";
            ["not a JSON object", strings, strings]
        }
        Language::Go => {
            let object = "not a JSON object of strings";
            [object, r#"only ["-boot" "-global" "-rtc"] are allowed"#, object]
        }
        _ => [r#"not a JSON object of strings for ["-boot", "-global", "-rtc"]"#; 3],
    };
    let mut refusals = refuse(&["-rtc", "-rtc base=localtime", "[]"], &kubevirt, no_object);
    let values = [r#"{"-drive":"x"}"#, r#"{"-drive":"file=/etc/passwd"}"#];
    refusals.extend(refuse(&values, &kubevirt, not_allowed));
    refusals.extend(refuse(&[r#"{"-rtc":7}"#], &kubevirt, no_string));
    if language == Language::Rust {
        refusals.extend(refuse(&[r#"{"-rtc":"a\u0000"}"#], &kubevirt, no_string));
    }
    let annotation = "qemu.vm.kubevirt.io/options";
    Example { name: "qemu_arguments", hook: "onDefineDomain", annotation, cases, refusals }
}

pub fn iommu(language: Language) -> Example {
    let kubevirt = kubevirt_domain();
    let driver = "<driver intremap=\"on\" caching_mode=\"on\"></driver>";
    let ioapic = "<ioapic driver=\"qemu\"></ioapic>";
    let iommu = |level: &str| {
        let driver = inside(language, &level.repeat(2), level, &[driver]);
        format!("<iommu model=\"intel\">{driver}</iommu>")
    };
    let tabs = [
        ("<acpi></acpi>", format!("<acpi></acpi>\n\t\t{ioapic}")),
        ("</rng>", format!("</rng>\n\t\t{}", iommu("\t"))),
    ];
    let spaces = tabs.clone().map(|(old, new)| (old, new.replace('\t', "  ")));
    let there = with(
        &kubevirt,
        &[
            ("<acpi></acpi>", "<acpi></acpi><ioapic driver='kvm'/>"),
            ("</rng>", "</rng><iommu model='virtio'><driver eim='on'/></iommu>"),
        ],
    );
    let quote = if follows_the_page(language) { '\'' } else { '"' };
    let balloon = "<memballoon model='virtio-non-transitional' freePageReporting='on'/>";
    let cases = vec![
        Case::edit("tabs", "intel", &kubevirt, &tabs.each_ref().map(|(old, new)| (*old, &**new))),
        Case::edit(
            "spaces",
            "intel",
            &plugin_domain(),
            &spaces.each_ref().map(|(old, new)| (*old, &**new)),
        ),
        Case::edit(
            "other attributes of the elements stay",
            "intel",
            &there,
            &[
                ("<ioapic driver='kvm'/>", &format!("<ioapic driver={quote}qemu{quote}/>")),
                (
                    "<iommu model='virtio'><driver eim='on'/></iommu>",
                    &format!(
                        "<iommu model={quote}intel{quote}>\
                         <driver eim='on' intremap=\"on\" caching_mode=\"on\"/></iommu>"
                    ),
                ),
            ],
        ),
        Case::edit(
            "libvirt",
            "intel",
            &libvirt_domain(),
            &[
                ("<acpi/>", &format!("<acpi/>\n    {ioapic}")),
                (balloon, &format!("{balloon}\n    {}", iommu("  "))),
            ],
        ),
    ];
    let reason = "only intel on machine type q35 works";
    let mut refusals = refuse(&["smmuv3"], &kubevirt, reason);
    for machine in ["pc-i440fx-9.0", "virt"] {
        let other = with(&kubevirt, &[("machine=\"q35\"", &format!("machine=\"{machine}\""))]);
        refusals.extend(refuse(&["intel"], &other, reason));
    }
    let annotation = "iommu.vm.kubevirt.io/model";
    Example { name: "iommu", hook: "onDefineDomain", annotation, cases, refusals }
}

pub fn cloud_init(_language: Language) -> Example {
    let sample = read("crates/hookctl/src/samples/cloud-init.json");
    let data: Value = serde_json::from_str(&sample).unwrap();
    // In the order in which every language writes an object that came in this order.
    let user_data = |user_data: Value| {
        let mut data = data.clone();
        data["UserData"] = user_data;
        data.to_string()
    };
    let multi_part = |owner: &str, zone: &str| {
        let delimiter = "--==sidecar-shim-0==";
        let owner = match owner {
            "" => String::new(),
            _ => {
                format!("{delimiter}\nContent-Description: user data of the VM's owner\n{owner}\n")
            }
        };
        format!(
            "Content-Type: multipart/mixed; boundary=\"==sidecar-shim-0==\"\nMIME-Version: 1.0\n\n\
             {owner}{delimiter}\n\
             Content-Disposition: attachment; filename=\"timezone.vm.kubevirt.io\"\n\
             Content-Type: text/cloud-config; charset=\"utf-8\"\n\
             Merge-Type: dict(replace)+list()+str()\n\n\
             #cloud-config\ntimezone: \"{zone}\"\n\n{delimiter}--\n"
        )
    };
    let (yaml, script, message) = (
        "#cloud-config\ntimezone: UTC\na: b",
        "#!/bin/sh\necho ü\n",
        "MIME-Version: 1.0\nContent-Type: text/cloud-config\n\na: b\n",
    );
    let mut cases: Vec<_> = [
        ("YAML", yaml, format!("Content-Type: text/cloud-config; charset=\"utf-8\"\n\n{yaml}")),
        (
            "a script",
            script,
            "Content-Type: text/x-shellscript; charset=\"utf-8\"\n\
             Content-Transfer-Encoding: base64\n\nIyEvYmluL3NoCmVjaG8gw7wK"
                .to_owned(),
        ),
        ("MIME", message, message.to_owned()),
        ("no user data", "", String::new()),
    ]
    .into_iter()
    .map(|(what, before, owner)| Case {
        what,
        value: "Europe/Lisbon",
        sent: user_data(json!(before)),
        expected: user_data(json!(multi_part(&owner, "Europe/Lisbon"))),
        as_json: false,
    })
    .collect();
    let zone = "America/Port-au-Prince";
    let nothing = user_data(json!(multi_part("", zone)));
    cases.push(Case {
        what: "null",
        value: zone,
        sent: user_data(Value::Null),
        expected: nothing.clone(),
        as_json: false,
    });
    cases.push(Case::edit("the zone that is there", zone, &nothing, &[]));
    let owner = data["UserData"].as_str().unwrap();
    let owner = format!("Content-Type: text/cloud-config; charset=\"utf-8\"\n\n{owner}");
    cases.push(Case {
        what: "the sample",
        value: zone,
        sent: sample.clone(),
        expected: user_data(json!(multi_part(&owner, zone))),
        as_json: true,
    });

    let values = ["", "/", "Etc/", "UTC\nruncmd: [halt]", "Europe/Lisbon\nruncmd: [halt]", "Ü"];
    let refusals = refuse(&values, &sample, "not the name of a time zone");
    let annotation = "timezone.vm.kubevirt.io/name";
    Example { name: "cloud_init", hook: "preCloudInitIso", annotation, cases, refusals }
}
