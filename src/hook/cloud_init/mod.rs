//! KubeVirt's `CloudInitData`, read as KubeVirt reads it.
//!
//! # Theory of operation
//! KubeVirt decodes a hook's answer into Go types. A value of another kind than the type's fails
//! the start of the VM with a text that does not name the hook. So every field that KubeVirt reads
//! must have its kind, at every depth. Everything else is as in Go's decoder: the case of a key is
//! ignored, the last of equal keys wins, `null` is accepted everywhere and changes nothing, and
//! unknown fields are passed over.
//!
//! Errors name a field, the two kinds and the position. They never contain a value, or the key of a
//! map, which is the owner's too.

mod value;

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};

use self::value::{Field, Kind, Path, Seen, Step, Value, field_of};
use super::document::{BadDocument, Document, json_fault};
use super::{CLOUD_INIT_DATA, HookReply};

const USER_DATA: &str = "UserData";
const NETWORK_DATA: &str = "NetworkData";

const FIELDS: &[Field] = &[
    ("DataSource", Kind::Text),
    ("NoCloudMetaData", Kind::Object(NO_CLOUD)),
    ("ConfigDriveMetaData", Kind::Object(CONFIG_DRIVE)),
    (USER_DATA, Kind::Text),
    (NETWORK_DATA, Kind::Text),
    ("DevicesData", DEVICES),
    ("VolumeName", Kind::Text),
];

const NO_CLOUD: &[Field] = &[
    ("instance-type", Kind::Text),
    ("instance-id", Kind::Text),
    ("local-hostname", Kind::Text),
    ("public-keys", Kind::Texts),
];

const CONFIG_DRIVE: &[Field] = &[
    ("instance_type", Kind::Text),
    ("instance_id", Kind::Text),
    ("local_hostname", Kind::Text),
    ("hostname", Kind::Text),
    ("uuid", Kind::Text),
    ("devices", DEVICES),
    ("public_keys", Kind::Texts),
];

const DEVICES: Kind = Kind::List(&Kind::Object(&[
    ("type", Kind::Text),
    ("bus", Kind::Text),
    ("address", Kind::Text),
    ("mac", Kind::Text),
    ("serial", Kind::Text),
    ("numaNode", Kind::Unsigned),
    ("alignedCPUs", Kind::List(&Kind::Unsigned)),
    ("tags", Kind::List(&Kind::Text)),
]));

/// What the shim itself needs of `CloudInitData`. `None` is absent, or `null`.
#[derive(Default)]
pub struct CloudInitTexts {
    pub user_data: Option<String>,
    pub network_data: Option<String>,
    /// Whether any field that KubeVirt reads has a value.
    has_fields: bool,
}

impl CloudInitTexts {
    /// Reads a JSON object. The error continues a sentence that begins with the document's name.
    pub fn read(data: &[u8]) -> Result<Self, String> {
        let mut json = serde_json::Deserializer::from_slice(data);
        json.deserialize_map(Whole).map_err(|error| {
            if error.is_data() { error.to_string() } else { json_fault(data, &error) }
        })
    }
}

/// Validates a hook's answer to `sent`.
pub(super) fn check(sent: &Document, answer: Document) -> Result<HookReply, BadDocument> {
    let bad = |fault| BadDocument::new(CLOUD_INIT_DATA, fault);
    let found = CloudInitTexts::read(answer.bytes()).map_err(bad)?;
    if !found.has_fields {
        let names: Vec<_> = FIELDS.iter().map(|(name, _)| *name).collect();
        return Err(bad(format!("has no field that KubeVirt reads: {}", names.join(", "))));
    }
    // What KubeVirt sent may itself be of another kind; then there is nothing to compare.
    let user_data_was_sent = || {
        let sent = CloudInitTexts::read(sent.bytes()).unwrap_or_default();
        sent.user_data.is_some_and(|text| !text.is_empty())
    };
    if found.user_data.is_none() && user_data_was_sent() {
        return Err(bad(format!(
            "has no {USER_DATA}, although the request has: return all fields of the request, or \
             \"{USER_DATA}\":\"\" to remove it"
        )));
    }
    Ok(HookReply::Changed(answer))
}

/// Reads the outermost object.
struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = CloudInitTexts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CloudInitTexts, A::Error> {
        let mut found = CloudInitTexts::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let Some((name, kind)) = field_of(&key, FIELDS) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let path = Path { parent: None, step: Step::Field(name) };
            let value = map.next_value_seed(Value { kind, path: &path })?;
            found.has_fields |= !matches!(value, Seen::Null);
            match (*name, value) {
                (USER_DATA, Seen::Text(text)) => found.user_data = Some(text.into_owned()),
                (NETWORK_DATA, Seen::Text(text)) => found.network_data = Some(text.into_owned()),
                _ => {}
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the fault of an answer to a request with user data, or "" if it has none.
    fn fault(answer: impl Into<Vec<u8>>) -> String {
        let document = |bytes: Vec<u8>| Document::json_object(CLOUD_INIT_DATA, &bytes.into());
        let sent = document(br#"{"UserData":"sent"}"#.to_vec()).unwrap();
        match document(answer.into()).and_then(|answer| check(&sent, answer)) {
            Ok(_) => String::new(),
            Err(bad) => bad.to_string(),
        }
    }

    /// A value of each kind of JSON, whose texts must not be quoted.
    const VALUES: [(&str, &str); 8] = [
        ("null", "null"),
        ("a boolean", "true"),
        ("a number", "7"),
        ("a negative number", "-7"),
        ("a floating-point number", "1.5e2"),
        ("a string", "\"s3cr3t\""),
        ("an array", "[\"s3cr3t\"]"),
        ("an object", "{\"s3cr3t\":\"s3cr3t\"}"),
    ];

    /// Where a field stands: the JSON around its value.
    fn placed(path: &[&str], value: &str) -> String {
        path.iter().rev().fold(value.to_owned(), |inner, step| match *step {
            "[0]" => format!("[{inner}]"),
            "[…]" => format!("{{\"s3cr3t\":{inner}}}"),
            name => format!("{{\"{name}\":{inner}}}"),
        })
    }

    /// Tries every kind of value at a field and at all below it, and returns how many fields.
    fn try_kinds(kind: &'static Kind, path: &mut Vec<&'static str>) -> usize {
        for (found, value) in VALUES {
            let right = match kind {
                Kind::Text => "a string",
                Kind::Unsigned => "a number",
                // An array of a string: of these only a list of texts takes it.
                Kind::List(Kind::Text) => "an array",
                Kind::List(_) => "an empty array",
                Kind::Texts | Kind::Object(_) => "an object",
            };
            let mut answer = placed(path, value);
            if path[0] != USER_DATA {
                answer = answer.replacen('{', "{\"UserData\":\"u\",", 1);
            }
            let fault = fault(answer.as_str());
            let user_data_is_null = path.as_slice() == [USER_DATA] && value == "null";
            if (found == right || found == "null") && !user_data_is_null {
                assert_eq!(fault, "", "{answer}");
            } else {
                assert!(!fault.is_empty() && !fault.contains("s3cr3t"), "{answer}: {fault}");
                let name = path.last().unwrap();
                assert!(fault.contains(name), "{answer}: {fault}");
            }
        }
        let mut below = |step, kind| {
            path.push(step);
            let fields = try_kinds(kind, path);
            path.pop();
            fields
        };
        1 + match kind {
            Kind::Text | Kind::Unsigned => 0,
            Kind::Texts => below("[…]", &Kind::Text),
            Kind::List(kind) => below("[0]", kind),
            Kind::Object(fields) => fields.iter().map(|(name, kind)| below(name, kind)).sum(),
        }
    }

    #[test]
    fn every_field_has_the_kind_of_kubevirts_type() {
        let tried: usize = FIELDS.iter().map(|(name, kind)| try_kinds(kind, &mut vec![name])).sum();
        // 7 fields, 4 and 7 in the metadata, twice an element with 8, and what lists and maps hold.
        assert_eq!(tried, 7 + (4 + 1) + (7 + 1) + 2 * (1 + 8 + 2));
    }

    #[test]
    fn a_fault_names_the_field_both_kinds_and_the_position() {
        let has = "cloudInitData has";
        for (answer, expected) in [
            (
                r#"{"UserData":"u","ConfigDriveMetaData":"null"}"#,
                "a string in ConfigDriveMetaData, where KubeVirt reads an object or null, \
                 at line 1 column 44",
            ),
            (
                r#"{"UserData":"u","configdrivemetadata":{"devices":[null,{"tags":[null,7]}]}}"#,
                "a number in ConfigDriveMetaData.devices[1].tags[1], where KubeVirt reads a \
                 string, at line 1 column 70",
            ),
            (
                "{\"UserData\":\"u\",\n\"NoCloudMetaData\":{\"public-keys\":{\"0\":[]}}}",
                "an array in NoCloudMetaData.public-keys[…], where KubeVirt reads a string, \
                 at line 2 column 40",
            ),
            (
                r#"{"UserData":"u","DevicesData":[{"numaNode":4294967296}]}"#,
                "a larger number in DevicesData[0].numaNode, where KubeVirt reads a whole number \
                 from 0 to 4294967295, at line 1 column 53",
            ),
        ] {
            assert_eq!(fault(answer), format!("{has} {expected}"));
        }
    }

    #[test]
    fn keys_are_those_of_gos_decoder() {
        let texts = |data: &str| {
            let found = CloudInitTexts::read(data.as_bytes()).unwrap();
            (found.user_data, found.network_data)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(texts(r#"{"userdata":"a","NETWORKDATA":"n"}"#), (some("a"), some("n")));
        assert_eq!(texts(r#"{"UserData":"a","USERDATA":"b","userData":null}"#), (some("b"), None));
        assert_eq!(texts("{\"U\u{17f}erData\":\"a\",\"Networ\u{212a}Data\":\"n\"}").0, some("a"));
        assert_eq!(texts("{\"Networ\u{212a}Data\":\"n\"}").1, some("n"));
        assert_eq!(texts(r#"{"User-Data":"a","Other":{"UserData":"x"}}"#), (None, None));
        assert!(fault(r#"{"UserData":"u","volumename":7}"#).contains("a number in VolumeName"));
    }

    /// Writes fields as `protocol.md` does.
    fn notation(fields: &[Field], depth: usize) -> String {
        let kind = |kind: &Kind| match kind {
            Kind::Text => "string".to_owned(),
            Kind::Unsigned => "uint32".to_owned(),
            Kind::Texts => "{ [name]: string }".to_owned(),
            Kind::List(Kind::Text) => "string[]".to_owned(),
            Kind::List(Kind::Unsigned) => "uint32[]".to_owned(),
            Kind::List(_) => "Device[]".to_owned(),
            Kind::Object(fields) => notation(fields, depth + 1),
        };
        let indent = "  ".repeat(depth);
        let line = |(name, value): &Field| {
            let quote = if name.contains('-') { "\"" } else { "" };
            format!("{indent}  {quote}{name}{quote}: {},\n", kind(value))
        };
        format!("{{\n{}{indent}}}", fields.iter().map(line).collect::<String>())
    }

    #[test]
    fn the_protocols_page_has_the_fields_and_their_kinds() {
        let page = include_str!("../../../protocol.md");
        let blocks = page.split("```ts\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
        let uncommented = |block: &str| {
            let code = |line: &str| line.split("//").next().unwrap().trim_end().to_owned();
            block.lines().map(code).collect::<Vec<_>>().join("\n")
        };
        let Kind::List(Kind::Object(device)) = DEVICES else { panic!("devices are a list") };
        let blocks: Vec<_> = blocks.map(uncommented).collect();
        assert_eq!(blocks, [notation(FIELDS, 0), notation(device, 0)]);
    }

    #[test]
    fn an_answer_without_fields_is_refused() {
        for answer in ["{}", r#"{"Other":1,"domain":"x"}"#, r#"{"UserData":null}"#] {
            assert_eq!(
                fault(answer),
                "cloudInitData has no field that KubeVirt reads: DataSource, NoCloudMetaData, \
                 ConfigDriveMetaData, UserData, NetworkData, DevicesData, VolumeName"
            );
        }
    }

    #[test]
    fn user_data_is_removed_on_purpose_only() {
        let lost = "cloudInitData has no UserData, although the request has: return all fields of \
                    the request, or \"UserData\":\"\" to remove it";
        assert_eq!(fault(r#"{"DataSource":"noCloud"}"#), lost);
        assert_eq!(fault(r#"{"DataSource":"noCloud","UserData":null}"#), lost);
        assert_eq!(fault(r#"{"DataSource":"noCloud","UserData":""}"#), "");
        let answer = || Document::json_object("answer", &r#"{"DataSource":"noCloud"}"#.into());
        for sent in ["{}", r#"{"UserData":""}"#, r#"{"UserData":null}"#, r#"{"UserData":7}"#] {
            let sent = Document::json_object("sent", &sent.into()).unwrap();
            assert!(check(&sent, answer().unwrap()).is_ok());
        }
    }

    #[test]
    fn texts_that_are_no_text_are_refused_by_the_true_reason() {
        let half = "half of a surrogate pair in a string";
        for text in [r"\ud800", r"\udc00 s3cr3t", r"\ud800\ud800", r"\ud83d s3cr3t", r"\ud83d\n"] {
            for answer in [format!(r#"{{"UserData":"{text}"}}"#), format!(r#"{{"{text}":1}}"#)] {
                let fault = fault(answer.as_str());
                assert!(fault.contains(half) && !fault.contains("s3cr3t"), "{answer}: {fault}");
                assert!(fault.contains("line 1 column"), "{answer}: {fault}");
            }
        }
        assert_eq!(fault(r#"{"UserData":"\ud83d\ude00","Other":"\ud800"}"#), "");
        let latin1 = b"{\"UserData\":\"\xe9\"}";
        assert_eq!(fault(*latin1), "cloudInitData is not JSON in UTF-8: bad byte at offset 13");
        let huge = fault(r#"{"UserData":"u","DevicesData":[{"numaNode":1e999}]}"#);
        assert!(huge.contains("number out of range at line 1 column"), "{huge}");
    }
}
