//! A `VirtualMachineInstance` out of what people have: JSON or YAML, one object, a list or several
//! documents, a VMI or the `VirtualMachine` that it is made from.
//!
//! YAML is read as Kubernetes reads it, which is YAML 1.1: an unquoted `yes` is true and `0644` is
//! 420. The parser is `serde-saphyr`: it follows these rules for untyped values, rejects duplicate
//! keys as `kubectl` does, bounds what aliases expand to, and has no unsafe code.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// The group of KubeVirt's kinds. Other groups have a `VirtualMachine` too.
const GROUP: &str = "kubevirt.io/";
const VMI: &str = "VirtualMachineInstance";
const VM: &str = "VirtualMachine";

/// Maximum number of names in an error.
const MAX_NAMES: usize = 5;

/// Maximum length of a name in an error: Kubernetes allows 253 bytes for the longest.
const MAX_NAME_BYTES: usize = 253;

/// A VirtualMachineInstance.
#[derive(Debug)]
pub(crate) struct Vmi {
    pub(crate) json: Bytes,
    /// What the user should know about how it was made.
    pub(crate) note: Option<String>,
}

/// Finds the VMI in a file. An error says what the file holds instead, and how to get a VMI.
pub(crate) fn parse(file: &Bytes) -> Result<Vmi, String> {
    let text = file.strip_prefix(b"\xef\xbb\xbf").unwrap_or(file);
    let is_json = text.trim_ascii_start().starts_with(b"{");
    let documents = if is_json { read_json(text) } else { read_yaml(text) }?;
    let is_whole = matches!(&documents[..], [only] if is_json && list_kind(only).is_none());
    let object = choose(documents)?;
    if class(&object) == Class::Vm {
        return from_vm(&object);
    }
    // What is one VMI already stays as it was written, to the byte.
    let json = if is_whole { file.slice_ref(text) } else { object.to_string().into() };
    Ok(Vmi { json, note: None })
}

fn read_json(text: &[u8]) -> Result<Vec<Value>, String> {
    let values = serde_json::Deserializer::from_slice(text).into_iter::<Value>();
    values.collect::<Result<_, _>>().map_err(|error| format!("it is not JSON: {error}"))
}

fn read_yaml(text: &[u8]) -> Result<Vec<Value>, String> {
    if text.trim_ascii().is_empty() {
        return Err(format!("it is empty. {}", get("NAME", "NAMESPACE")));
    }
    if text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff") {
        return Err("it is in UTF-16: save it in UTF-8".to_owned());
    }
    let text = std::str::from_utf8(text)
        .map_err(|error| format!("it is not UTF-8: bad byte at offset {}", error.valid_up_to()))?;
    if text.trim_start().starts_with('<') {
        return Err(format!(
            "it is XML; a domain is given by --domain. {}",
            get("NAME", "NAMESPACE")
        ));
    }
    let options = serde_saphyr::options! {
        legacy_octal_numbers: true,
        strict_booleans: false,
        // It would quote the file.
        with_snippet: false,
    };
    let parsed = serde_saphyr::from_multiple_with_options(text, options);
    parsed.map_err(|error| format!("it is neither JSON nor YAML: {error}"))
}

/// What an object is to a hook.
#[derive(Debug, PartialEq, Eq)]
enum Class {
    Vmi,
    /// A VMI can be made from it.
    Vm,
    /// It has no kind, as in tests: taken as it is.
    Unnamed,
    /// Some other kind.
    Other,
    NoObject,
}

fn class(value: &Value) -> Class {
    if !value.is_object() {
        return Class::NoObject;
    }
    let is_kubevirts = text(value, "/apiVersion").is_none_or(|group| group.starts_with(GROUP));
    match text(value, "/kind") {
        None => Class::Unnamed,
        Some(VMI) if is_kubevirts => Class::Vmi,
        Some(VM) if is_kubevirts => Class::Vm,
        Some(_) => Class::Other,
    }
}

/// Returns the object that is meant: the only VMI, or else the only VM.
fn choose(documents: Vec<Value>) -> Result<Value, String> {
    let mut objects: Vec<_> =
        documents.into_iter().filter(|it| !it.is_null()).flat_map(items).collect();
    if objects.len() > 1 {
        let of_class = |wanted: Class| -> Vec<_> {
            (0..objects.len()).filter(|at| class(&objects[*at]) == wanted).collect()
        };
        let found = Some(of_class(Class::Vmi)).filter(|vmis| !vmis.is_empty());
        return match found.unwrap_or_else(|| of_class(Class::Vm))[..] {
            [at] => Ok(objects.swap_remove(at)),
            [] => Err(format!(
                "none of its {} objects is a {VMI} or a {VM}. {}",
                objects.len(),
                get("NAME", "NAMESPACE")
            )),
            [first, ..] => Err(several(&objects, first)),
        };
    }
    let Some(object) = objects.pop() else {
        return Err(format!("it holds no object. {}", get("NAME", "NAMESPACE")));
    };
    match class(&object) {
        Class::Vmi | Class::Vm | Class::Unnamed => Ok(object),
        Class::Other => Err(other(&object)),
        Class::NoObject => Err(format!(
            "it holds {}, not an object (without `-o json`, kubectl prints a table). {}",
            json_type(&object),
            get("NAME", "NAMESPACE")
        )),
    }
}

/// Returns the objects of a list, or the object itself. The items of a list that the API server
/// sends have no kind.
fn items(object: Value) -> Vec<Value> {
    let Some(kind) = list_kind(&object).map(str::to_owned) else { return vec![object] };
    let version = object.get("apiVersion").cloned();
    let Value::Object(mut list) = object else { return Vec::new() };
    let Some(Value::Array(mut items)) = list.remove("items") else { return Vec::new() };
    for item in items.iter_mut().filter_map(Value::as_object_mut).filter(|_| !kind.is_empty()) {
        item.entry("kind").or_insert_with(|| json!(kind));
        if let Some(version) = &version {
            item.entry("apiVersion").or_insert_with(|| version.clone());
        }
    }
    items
}

/// Returns the kind of a list's items, which is empty for a list of anything. `None` for what is no
/// list.
fn list_kind(object: &Value) -> Option<&str> {
    let kind = text(object, "/kind")?.strip_suffix("List")?;
    object.get("items").is_some_and(Value::is_array).then_some(kind)
}

/// Makes the VMI that KubeVirt makes of a VM, as far as the VM says it.
fn from_vm(vm: &Value) -> Result<Vmi, String> {
    let [name, namespace] = [NAME, NAMESPACE].map(|path| text(vm, path));
    let template = vm.pointer("/spec/template").and_then(Value::as_object);
    let Some(spec) = template.and_then(|template| template.get("spec")) else {
        return Err(format!(
            "it is a {VM} without spec.template.spec. {}",
            get(name.unwrap_or("NAME"), namespace_of(vm))
        ));
    };
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(name.unwrap_or("vm")));
    metadata.insert("namespace".to_owned(), json!(namespace.unwrap_or("default")));
    for field in ["labels", "annotations"] {
        let of_template = template.and_then(|template| template.get("metadata")?.get(field));
        if let Some(values) = of_template.filter(|values| !values.is_null()) {
            metadata.insert(field.to_owned(), values.clone());
        }
    }
    let version = text(vm, "/apiVersion").unwrap_or("kubevirt.io/v1");
    let vmi = json!({ "apiVersion": version, "kind": VMI, "metadata": metadata, "spec": spec });
    let is_typed =
        ["/spec/instancetype", "/spec/preference"].iter().any(|path| vm.pointer(path).is_some());
    let missing = if is_typed {
        "its UID, its status, KubeVirt's defaults, and what instance type and preference add"
    } else {
        "its UID, its status and KubeVirt's defaults"
    };
    let note = format!("made a {VMI} of the {VM}'s template, without {missing}");
    Ok(Vmi { json: vmi.to_string().into(), note: Some(note) })
}

const NAME: &str = "/metadata/name";
const NAMESPACE: &str = "/metadata/namespace";

/// Returns a text of the object, unless it is empty.
fn text<'a>(object: &'a Value, path: &str) -> Option<&'a str> {
    object.pointer(path).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// Reports an object of another kind.
fn other(object: &Value) -> String {
    // KubeVirt names the VM in the labels of its pods.
    let of_pod =
        ["/metadata/labels/vm.kubevirt.io~1name", "/metadata/annotations/kubevirt.io~1domain"];
    let name = of_pod.iter().find_map(|path| text(object, path)).unwrap_or("NAME");
    let kind = text(object, "/kind").unwrap_or_default();
    let version = text(object, "/apiVersion").unwrap_or("no apiVersion");
    let what: String = format!("{kind} ({version})").chars().take(MAX_NAME_BYTES).collect();
    format!("it is a {what}, and hooks get a {VMI}. {}", get(name, namespace_of(object)))
}

fn namespace_of(object: &Value) -> &str {
    text(object, NAMESPACE).filter(|it| is_name(it)).unwrap_or("NAMESPACE")
}

/// Reports that several VMs are there.
fn several(objects: &[Value], first: usize) -> String {
    let wanted = class(&objects[first]);
    let found: Vec<_> = objects.iter().filter(|object| class(object) == wanted).collect();
    let kind = if wanted == Class::Vmi { VMI } else { VM };
    let names: Vec<_> = found
        .iter()
        .take(MAX_NAMES)
        .map(|object| text(object, NAME).filter(|name| is_name(name)).unwrap_or("?"))
        .collect();
    let more = if found.len() > MAX_NAMES { ", …" } else { "" };
    format!(
        "it holds {} of kind {kind} ({}{more}), and a hook is called for one. {}",
        found.len(),
        names.join(", "),
        get(names.first().copied().unwrap_or("NAME"), namespace_of(found[0]))
    )
}

/// Returns the command that gets a VMI.
fn get(name: &str, namespace: &str) -> String {
    let name = if is_name(name) { name } else { "NAME" };
    format!("To get one: kubectl get vmi {name} -n {namespace} -o json > vmi.json")
}

/// Whether it can be a name in Kubernetes, so that it is safe in a command to copy.
fn is_name(name: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.chars().all(is_fit) && !name.starts_with('-')
}

fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Sets annotations and labels. Returns `None` if the VMI cannot have any.
pub(super) fn with_metadata(
    vmi: Bytes,
    fields: [(&str, &Vec<(String, String)>); 2],
) -> Option<Bytes> {
    if fields.iter().all(|(_, pairs)| pairs.is_empty()) {
        return Some(vmi);
    }
    let mut object: Map<String, Value> = serde_json::from_slice(&vmi).ok()?;
    let metadata = object.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
    for (field, pairs) in fields.into_iter().filter(|(_, pairs)| !pairs.is_empty()) {
        let values = metadata.entry(field).or_insert_with(|| json!({}));
        if values.is_null() {
            *values = json!({});
        }
        let values = values.as_object_mut()?;
        for (key, value) in pairs {
            values.insert(key.clone(), json!(value));
        }
    }
    serde_json::to_vec(&object).ok().map(Bytes::from)
}
