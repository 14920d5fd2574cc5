//! The steps of `sdk/vectors/xml.json`.

use std::collections::HashMap;

use kubevirt_hook::serde_json::Value;
use kubevirt_hook::xml::{Document, EditError, Element, InvalidPath};

/// What the vectors call the kinds of errors.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: &'static str,
    pub message: String,
}

impl From<InvalidPath> for Fault {
    fn from(error: InvalidPath) -> Self {
        Self { kind: "path", message: error.to_string() }
    }
}

impl From<EditError> for Fault {
    fn from(error: EditError) -> Self {
        let kind = if matches!(error, EditError::Path(_)) { "path" } else { "value" };
        Self { kind, message: error.to_string() }
    }
}

/// A document, and the elements of it that have names.
pub struct Editing<'d> {
    document: &'d Document,
    named: HashMap<String, Element<'d>>,
}

impl<'d> Editing<'d> {
    pub fn start(document: &'d Document, namespaces: &Value) -> Result<Self, Fault> {
        for (prefix, namespace) in namespaces.as_object().into_iter().flatten() {
            document.namespace(prefix, namespace.as_str().unwrap())?;
        }
        Ok(Self { document, named: HashMap::new() })
    }

    fn element(&self, name: &Value) -> Element<'d> {
        match name.as_str().unwrap() {
            "root" => self.document.root(),
            name => self.named[name],
        }
    }

    fn name(&mut self, names: &Value, found: &[Element<'d>]) {
        let names = match names {
            Value::Null => Vec::new(),
            Value::Array(names) => names.iter().collect(),
            name => vec![name],
        };
        assert_eq!(found.len(), names.len(), "the number of elements that were found");
        for (name, element) in names.into_iter().zip(found) {
            self.named.insert(name.as_str().unwrap().to_owned(), *element);
        }
    }

    /// Does one step, and checks what it returns.
    pub fn step(&mut self, step: &Value) -> Result<(), Fault> {
        let on = self.element(&step["on"]);
        let word = |member: &str| step[member].as_str().unwrap_or_default();
        let values = step["values"].as_array().into_iter().flatten();
        let values: Vec<&str> = values.map(|value| value.as_str().unwrap()).collect();
        let path = (word("path"), &values[..]);
        match word("do") {
            "find" => {
                let found = on.find(path)?;
                self.name(&step["as"], found.as_slice());
            }
            "find_all" => {
                let found = on.find_all(path)?;
                self.name(&step["as"], &found);
            }
            "ensure" => {
                let found = on.ensure(path)?;
                self.name(&step["as"], &[found]);
            }
            "append" => {
                let new = on.append(path)?;
                self.name(&step["as"], &[new]);
            }
            "insert_before" => {
                let new = on.insert_before(path)?;
                self.name(&step["as"], &[new]);
            }
            "parent" => self.name(&step["as"], on.parent().as_slice()),
            "remove" => on.remove()?,
            "namespace" => self.document.namespace(word("prefix"), word("value"))?,
            "get" => {
                let value = on.get(word("name"))?;
                assert_eq!(value.as_deref(), step["is"].as_str());
            }
            "set" => {
                on.set(word("name"), word("value"))?;
            }
            "remove_attribute" => on.remove_attribute(word("name"))?,
            "attributes" => {
                let all: Vec<_> = on.attributes().into_iter().map(|(k, v)| [k, v]).collect();
                assert_eq!(kubevirt_hook::serde_json::json!(all), step["are"]);
            }
            "text" => assert_eq!(on.text(), word("is")),
            "set_text" => {
                on.set_text(word("value"))?;
            }
            "name" => {
                assert_eq!(on.name(), word("is"));
                assert_eq!(on.namespace(), word("namespace"));
            }
            "same" => assert!(on == self.element(&step["other"])),
            other => panic!("unknown step {other}"),
        }
        Ok(())
    }
}
