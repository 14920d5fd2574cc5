use super::*;

fn listed(old: &str, new: &str, detail: Detail) -> Vec<String> {
    let changes = xml::changes(old, new, detail).unwrap();
    changes.listed.iter().map(ToString::to_string).collect()
}

fn positions(old: &str, new: &str) -> Vec<String> {
    listed(old, new, Detail::Positions)
}

const OLD: &str = r#"<domain type="kvm">
  <!-- of KubeVirt -->
  <name>vm</name>
  <os><type arch="x86_64">hvm</type></os>
  <devices>
    <disk type="file"><alias name="ua-a"/></disk>
    <disk type="file"><alias name="ua-b"/></disk>
    <disk type="block"><alias name="ua-c"/></disk>
  </devices>
</domain>"#;

#[test]
fn what_was_added_removed_and_altered_is_told_by_position() {
    let new = OLD
        .replace("<os>", "<os><smbios mode='sysinfo'/>")
        .replace("arch=\"x86_64\"", "arch='aarch64'")
        .replace("<name>vm</name>", "<name>other</name>")
        .replace(r#"<disk type="file"><alias name="ua-b"/></disk>"#, "")
        .replace("</devices>", "<iommu model=\"intel\"><driver/></iommu></devices>")
        .replace(r#"<disk type="block">"#, r#"<disk type="block" device="lun">"#);
    let expected = [
        "altered /domain/name",
        "added /domain/os/smbios",
        "altered /domain/os/type/@arch",
        "added /domain/devices/disk[2]/@device",
        "altered /domain/devices/disk[2]/@type",
        "altered /domain/devices/disk[2]/alias/@name",
        "added /domain/devices/iommu",
        "removed /domain/devices/disk[3]",
    ];
    let found = positions(OLD, &new);
    // An altered disk is paired with the first one left.
    assert_eq!(found[..3], expected[..3]);
    assert!(found.contains(&"added /domain/devices/iommu".to_owned()), "{found:?}");
    assert!(found.contains(&"removed /domain/devices/disk[3]".to_owned()), "{found:?}");
    assert!(found.len() <= expected.len(), "{found:?}");
}

#[test]
fn one_of_several_is_counted_among_its_name() {
    let old = "<domain><a/><b><e k='1'/></b></domain>";
    let new = "<domain><a/><b><e k='1'/><f/><e k='2'/><e k='3'/></b></domain>";
    assert_eq!(
        positions(old, new),
        ["added /domain/b/f", "added /domain/b/e[2]", "added /domain/b/e[3]"]
    );
    assert_eq!(
        positions(new, old),
        ["removed /domain/b/f", "removed /domain/b/e[2]", "removed /domain/b/e[3]"]
    );
    let first = new.replace("<e k='1'/>", "");
    assert_eq!(positions(new, &first), ["removed /domain/b/e[1]"]);
}

#[test]
fn spelling_is_no_change() {
    let respelt = OLD
        .replace("type=\"kvm\"", "xmlns:q='urn:q'  type = '&#107;vm'")
        .replace("<name>vm</name>", "<name><![CDATA[v]]>&#x6d;</name>\n\n")
        .replace("  <!-- of KubeVirt -->\n", "")
        .replace("<alias name=\"ua-a\"/>", "<alias name=\"ua-a\"></alias>");
    assert_eq!(positions(OLD, &respelt), [""; 0]);
}

#[test]
fn values_and_names_are_for_the_author_alone() {
    let old = "<domain><sysinfo type='smbios'><entry name='a'>x</entry></sysinfo></domain>";
    let new = "<domain><sysinfo type='smbios'><entry name='a'>y</entry>\
               <entry name=\"it's\">S &amp; n</entry></sysinfo><os k='1'/></domain>";
    assert_eq!(
        listed(old, new, Detail::Values),
        [
            "altered /domain/sysinfo[@type='smbios']/entry[@name='a']: \"x\" → \"y\"",
            "added /domain/sysinfo[@type='smbios']/entry[@name=\"it's\"]: \"S & n\"",
            "added /domain/os[@k='1']",
        ]
    );
    let secret = "SECRET";
    let with = |text: &str| format!("<domain k='{text}'><a>{text}</a><b>{text}</b></domain>");
    for found in positions(&with("x"), &with(secret)) {
        assert!(!found.contains(secret), "{found}");
    }
}

#[test]
fn the_list_is_bounded_and_the_count_is_not() {
    let disks = |count: usize| format!("<domain>{}</domain>", "<disk/>".repeat(count));
    let changes = xml::changes(&disks(1), &disks(10_001), Detail::Positions).unwrap();
    assert_eq!((changes.listed.len(), changes.added, changes.count()), (20, 10_000, 10_000));
    // In the reverse order: with a time that grows with the square this would take minutes.
    let numbered = |numbers: &mut dyn Iterator<Item = usize>| {
        let disks: Vec<_> = numbers.map(|n| format!("<disk n='{n}'/>")).collect();
        format!("<domain>{}</domain>", disks.concat())
    };
    let (up, down) = (numbered(&mut (0..50_000)), numbered(&mut (0..50_000).rev()));
    assert_eq!(xml::changes(&up, &down, Detail::Positions).unwrap().count(), 0);
}

#[test]
fn what_is_not_well_formed_has_no_list() {
    for broken in ["", "x", "<a", "<a b", "<a b='", "<a>", "<a><!-- ", "</a>", "<a b=c/>"] {
        assert_eq!(xml::changes(broken, "<a/>", Detail::Positions), None, "{broken}");
        assert_eq!(xml::changes("<a/>", broken, Detail::Positions), None, "{broken}");
    }
    let deep = format!("{}{}", "<a>".repeat(100_000), "</a>".repeat(100_000));
    assert_eq!(xml::changes(&deep, "<a/>", Detail::Positions), None);
}

#[test]
fn fields_of_cloud_init_data_are_named_two_deep() {
    let old = br#"{"UserData": "x", "NoCloudMetaData": {"instance-id": "i", "public-keys": {"me": "k"}}, "VolumeName": "v"}"#;
    let new = br#"{"UserData": "SECRET", "NoCloudMetaData": {"instance-id": "i", "local-hostname": "h", "public-keys": {"SECRET": "k"}}, "NetworkData": ""}"#;
    let changes = json::changes(old, new, Detail::Positions).unwrap();
    let listed: Vec<_> = changes.listed.iter().map(ToString::to_string).collect();
    let expected = [
        "added /NetworkData",
        "altered /UserData",
        "removed /VolumeName",
        "added /NoCloudMetaData/local-hostname",
        "altered /NoCloudMetaData/public-keys",
    ];
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(listed), sorted(expected.map(str::to_owned).to_vec()));
    let values = json::changes(old, new, Detail::Values).unwrap();
    assert!(
        values.listed.iter().any(|it| it.to_string() == "altered /UserData: \"x\" → \"SECRET\"")
    );
}
