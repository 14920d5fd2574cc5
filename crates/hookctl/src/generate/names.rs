//! Validates what Kubernetes validates, so that a manifest is not refused after half of it was
//! applied.

/// Maximum length of a DNS label: names of namespaces, containers and volumes.
const MAX_LABEL_BYTES: usize = 63;

/// Maximum length of a DNS subdomain: the prefix of an annotation's key.
const MAX_SUBDOMAIN_BYTES: usize = 253;

/// Ending of the names of a hook's objects, except the Plugin: `smbios-hook` for `smbios`.
const SUFFIX: &str = "-hook";

/// Maximum length of an image reference: its repository has 255 bytes at most, its tag 128, and a
/// digest of SHA-512 136.
const MAX_IMAGE_BYTES: usize = 521;

/// Maximum length of an annotation's value that a condition compares. Such values are words; this
/// keeps conditions far below the sizes that the API server and KubeVirt compile and store.
const MAX_VALUE_BYTES: usize = 4096;

/// Maximum length of an address: what browsers and Alertmanager's receivers take.
const MAX_ADDRESS_BYTES: usize = 2048;

/// Prefixes of the annotations, and prefixes and keys of the labels, that KubeVirt 1.9 does not
/// copy from a VM to its pod, or sets there.
const ANNOTATIONS_OF_VMS: [&str; 2] = ["kubevirt.io", "kubectl.kubernetes.io"];
const LABELS_OF_PODS: [&str; 4] =
    ["kubevirt.io", "vm.kubevirt.io/name", "vmi.kubevirt.io/id", "sidecar.istio.io/inject"];

/// The annotation that names a VM's sidecars.
pub(super) const HOOK_SIDECARS: &str = "hooks.kubevirt.io/hookSidecars";

/// Returns the name of the objects that belong to a hook.
pub(crate) fn object_name(name: &str) -> String {
    if name.ends_with(SUFFIX) { name.to_owned() } else { format!("{name}{SUFFIX}") }
}

/// Parses the name of a hook: a DNS label with room for the ending.
pub(crate) fn parse_name(text: &str) -> Result<String, String> {
    let name = parse_label(text)?;
    let longest = MAX_LABEL_BYTES - SUFFIX.len();
    if object_name(&name).len() > MAX_LABEL_BYTES {
        return Err(format!(
            "{} characters are too long: objects are named NAME{SUFFIX}, so {longest} fit",
            name.len()
        ));
    }
    Ok(name)
}

/// Parses a DNS label.
pub(crate) fn parse_label(text: &str) -> Result<String, String> {
    if text.len() > MAX_LABEL_BYTES {
        return Err(format!("{} bytes are too long: {MAX_LABEL_BYTES} fit", text.len()));
    }
    if !is_label(text) {
        return Err(
            "not a DNS label: lower-case letters, digits and -, with a letter or digit first \
                    and last"
                .to_owned(),
        );
    }
    Ok(text.to_owned())
}

fn is_label(text: &str) -> bool {
    let alphanumeric = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit();
    text.chars().all(|char| alphanumeric(char) || char == '-')
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
}

/// A namespace and a name in it.
#[derive(Debug, Clone)]
pub(crate) struct NamespacedName {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Parses `NAMESPACE/NAME`.
pub(crate) fn parse_namespaced(text: &str) -> Result<NamespacedName, String> {
    let (namespace, name) =
        text.split_once('/').ok_or("must be NAMESPACE/NAME, such as default/vm1")?;
    Ok(NamespacedName { namespace: parse_label(namespace)?, name: parse_label(name)? })
}

/// A key, and a value if one was given.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    pub(super) key: String,
    pub(super) value: Option<String>,
}

impl KeyValue {
    /// Checks annotations of a VM: a key that is there twice is an error in YAML, and so is the one
    /// that names the sidecars, which is generated.
    pub(crate) fn check_distinct(annotations: &[Self]) -> Result<(), String> {
        for (index, Self { key, .. }) in annotations.iter().enumerate() {
            if annotations[..index].iter().any(|other| other.key == *key) {
                return Err(format!("--vm-annotation {key} is given twice"));
            }
            if key == HOOK_SIDECARS {
                return Err(format!("--vm-annotation {key}: it names the sidecars itself"));
            }
        }
        Ok(())
    }
}

/// Parses `K` or `K=V` of an annotation.
pub(crate) fn parse_annotation(text: &str) -> Result<KeyValue, String> {
    let pair = parse_key_value(text)?;
    check_copied(&pair.key, &ANNOTATIONS_OF_VMS, "annotation")?;
    match &pair.value {
        Some(value) if value.len() > MAX_VALUE_BYTES => Err(format!(
            "the value has {} bytes, and conditions can compare {MAX_VALUE_BYTES}",
            value.len()
        )),
        _ => Ok(pair),
    }
}

/// Refuses a key that KubeVirt does not copy from the VM to its pod as it is: the conditions of the
/// Plugin and of the policy would differ.
fn check_copied(key: &str, different: &[&str], what: &str) -> Result<(), String> {
    let prefix = key.split('/').next().unwrap_or_default();
    if different.contains(&prefix) || different.contains(&key) {
        return Err(format!(
            "KubeVirt sets this {what} itself, and not the same on the VM's pod as on the VM: choose \
             one of the VM's owner"
        ));
    }
    Ok(())
}

/// Parses `K=V` of an annotation of the VM.
pub(crate) fn parse_annotation_of_vm(text: &str) -> Result<KeyValue, String> {
    let pair = parse_key_value(text)?;
    if pair.value.is_none() {
        return Err("must be K=V".to_owned());
    }
    Ok(pair)
}

/// Parses `K` or `K=V` of a label.
pub(crate) fn parse_vm_label(text: &str) -> Result<KeyValue, String> {
    let pair = parse_key_value(text)?;
    check_copied(&pair.key, &LABELS_OF_PODS, "label")?;
    check_label_value(&pair)?;
    Ok(pair)
}

fn check_label_value(pair: &KeyValue) -> Result<(), String> {
    match &pair.value {
        Some(value) if !value.is_empty() && !is_name_part(value) => Err(format!(
            "the value is not one that a label can have: at most {MAX_LABEL_BYTES} of A-Z a-z 0-9 - _ \
             . with a letter or digit first and last"
        )),
        _ => Ok(()),
    }
}

/// Parses `K=V` of a label of an object other than a VM.
pub(crate) fn parse_label_of_object(text: &str) -> Result<KeyValue, String> {
    let pair = parse_key_value(text)?;
    check_label_value(&pair)?;
    if pair.value.is_none() { Err("must be K=V".to_owned()) } else { Ok(pair) }
}

/// Parses the address of a page. Braces would be a template of Prometheus, and `#` begins the
/// section.
pub(crate) fn parse_address(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_plain = |char: char| char.is_ascii_graphic() && !"\"#<>\\^`{|}".contains(char);
    let fits = rest.is_some_and(|rest| {
        rest.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '[')
            && rest.chars().all(is_plain)
    });
    if !fits || text.len() > MAX_ADDRESS_BYTES {
        return Err("not the address of a page: https://HOST/PATH, without # and spaces".to_owned());
    }
    Ok(text.to_owned())
}

fn parse_key_value(text: &str) -> Result<KeyValue, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if let Some(prefix) = prefix
        && !is_subdomain(prefix)
    {
        return Err("the key's part before / is not a DNS name, such as example.com".to_owned());
    }
    if !is_name_part(name) {
        return Err(format!(
            "the key is not one that Kubernetes accepts: [DOMAIN/]NAME, with at most \
             {MAX_LABEL_BYTES} of A-Z a-z 0-9 - _ . in NAME, and a letter or digit first and last"
        ));
    }
    Ok(KeyValue { key: key.to_owned(), value })
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN_BYTES && text.split('.').all(is_label)
}

/// Whether the text can be the name in a key, or a label's value.
fn is_name_part(text: &str) -> bool {
    text.len() <= MAX_LABEL_BYTES
        && text.chars().all(|char| char.is_ascii_alphanumeric() || "-_.".contains(char))
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

/// Parses an image reference.
pub(crate) fn parse_image(text: &str) -> Result<String, String> {
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (text, None),
    };
    let name_fits = name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.ends_with(|last: char| last.is_ascii_alphanumeric() || "-_.".contains(last))
        && name.chars().all(|char| char.is_ascii_alphanumeric() || "-_./:".contains(char))
        && !name.contains("//");
    if !name_fits || text.len() > MAX_IMAGE_BYTES {
        return Err("not an image: it is written HOST/PATH:TAG or HOST/PATH@sha256:…".to_owned());
    }
    if let Some(digest) = digest
        && !is_digest(digest)
    {
        return Err("not a digest after @: sha256: and 64 hexadecimal digits".to_owned());
    }
    Ok(text.to_owned())
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.chars().all(|char| matches!(char, '0'..='9' | 'a'..='f'))
    })
}

/// Whether an image is named by its digest, so that it cannot change.
pub(super) fn has_digest(image: &str) -> bool {
    image.contains('@')
}

/// Parses an amount of CPU or memory.
pub(crate) fn parse_quantity(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let is_number = digits.parse::<f64>().is_ok_and(|number| number > 0.0)
        && digits.chars().all(|char| char.is_ascii_digit() || char == '.')
        && digits.starts_with(|first: char| first.is_ascii_digit())
        && digits.ends_with(|last: char| last.is_ascii_digit());
    if is_number && matches!(unit, "" | "m" | "k" | "M" | "G" | "Ki" | "Mi" | "Gi") {
        return Ok(text.to_owned());
    }
    Err("not an amount that Kubernetes reads: 200m or 1 of CPU, 64Mi or 1Gi of memory".to_owned())
}

/// Parses a Linux capability. Kubernetes names it without `CAP_`.
pub(crate) fn parse_capability(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("CAP_").unwrap_or(text);
    let fits = name.starts_with(|first: char| first.is_ascii_uppercase())
        && name.chars().all(|char| char.is_ascii_uppercase() || char == '_');
    if !fits || name == "ALL" {
        return Err("not one capability: it is written like SYS_RESOURCE".to_owned());
    }
    Ok(name.to_owned())
}

/// Parses `NAME=VALUE` of the daemon's environment.
pub(crate) fn parse_variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    let fits = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
    if !fits {
        return Err("not the name of a variable: letters, digits and _, no digit first".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        for good in ["a", "smbios", "x1-y", "1a", &"a".repeat(58)] {
            assert!(parse_name(good).is_ok(), "{good}");
        }
        let too_long = "a".repeat(59);
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "a: b", "ä", "a\n", "a\"", &too_long] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
        assert_eq!(object_name("smbios"), "smbios-hook");
        assert_eq!(object_name("smbios-hook"), "smbios-hook");
    }

    #[test]
    fn keys_and_values_are_those_of_kubernetes() {
        for good in ["k", "example.com/k", "a/K_x.y-z", "k=v", "k=", "k=a=b\n\"ü"] {
            assert!(parse_annotation(good).is_ok(), "{good}");
        }
        for bad in
            ["", "/k", "a/", "a b", "a/b/c", "k\n", "\"k\"", "ä", "a..b/k", "=v", "kubevirt.io/x"]
        {
            assert!(parse_annotation(bad).is_err(), "{bad}");
        }
        assert!(parse_vm_label("k=v-1").is_ok() && parse_vm_label("k=").is_ok());
        for bad in [
            "k=a b",
            "k=-a",
            "k=ä",
            "kubevirt.io/domain=x",
            "kubevirt.io=x",
            "vm.kubevirt.io/name=a",
        ] {
            assert!(parse_vm_label(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn images_cannot_leave_their_quotes() {
        let digest = format!("r.example/a@sha256:{}", "0a".repeat(32));
        for good in ["a", "r.example:5000/a/b:1.0-x_y", &digest] {
            assert!(parse_image(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\"", "a\n", "/a", "a:", "a@sha256:12", "a//b", "ä"] {
            assert!(parse_image(bad).is_err(), "{bad}");
        }
        assert!(has_digest(&digest) && !has_digest("a:1"));
    }

    #[test]
    fn addresses_cannot_leave_their_texts() {
        let good = ["https://a.example/b/runbook.md", "http://[::1]:8080/x?y=%20&z", "https://a"];
        assert!(good.iter().all(|text| parse_address(text).is_ok()));
        let long = format!("https://a/{}", "b".repeat(MAX_ADDRESS_BYTES));
        for bad in [
            "",
            "https://",
            "a.example",
            "ftp://a",
            "https://a b",
            "https://a#b",
            "https://a/{{ .x }}",
            "https://a\"",
            "https://a\n",
            "https://ä",
            &long,
        ] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
        assert!(parse_label_of_object("a/b=c").is_ok() && parse_label_of_object("a=").is_ok());
        assert!(parse_label_of_object("a").is_err() && parse_label_of_object("a=b c").is_err());
    }

    #[test]
    fn amounts_and_capabilities_are_those_of_kubernetes() {
        for (text, good) in [("64Mi", true), ("0.5", true), ("200m", true), ("0", false)] {
            assert_eq!(parse_quantity(text).is_ok(), good, "{text}");
        }
        for bad in ["64MiB", "Mi", "-1", "inf", "NaN", "1e3", "1 Gi", "", "1."] {
            assert!(parse_quantity(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_capability("CAP_SYS_RESOURCE").unwrap(), "SYS_RESOURCE");
        assert!(parse_capability("ALL").is_err() && parse_capability("sys_admin").is_err());
        assert!(parse_variable("A=b=c").is_ok() && parse_variable("1A=b").is_err());
    }
}
