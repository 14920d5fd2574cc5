//! The VM of a call.

use std::ops::Deref;

use serde_json::Value;

/// A VirtualMachineInstance as Kubernetes JSON, always an object.
///
/// It is a [`Value`] with a few shorthands. What is missing reads as `Null`:
/// `vmi["spec"]["domain"]["cpu"]["cores"].as_u64()` is a number or `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vmi(Value);

impl Vmi {
    pub(crate) fn new(value: Value) -> Self {
        Self(value)
    }

    /// Returns the name, or an empty string.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Returns the namespace, or an empty string.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0["metadata"]["namespace"].as_str().unwrap_or_default()
    }

    /// Returns a label, if it is there.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        self.0["metadata"]["labels"][key].as_str()
    }

    /// Returns an annotation, if it is there. Annotations are how the VM's owner configures a hook.
    #[must_use]
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.0["metadata"]["annotations"][key].as_str()
    }

    /// Returns the value at names that are separated by dots; numbers count the items of lists.
    /// `None` if something on the way is missing or null.
    ///
    /// ```
    /// # let vmi = serde_json::json!({"spec": {"networks": [{"name": "default"}], "a": null}});
    /// # let call = kubevirt_hook::Call::builder(vmi).build();
    /// let vmi = call.vmi();
    /// assert_eq!(vmi.at("spec.networks.0.name").unwrap(), "default");
    /// assert!(vmi.at("spec.domain.memory.hugepages").is_none());
    /// # assert!(vmi.at("spec.a").is_none() && vmi.at("spec.networks.1").is_none());
    /// # assert!(vmi.at("spec.networks.+0").is_none() && vmi.at("").is_none());
    /// ```
    #[must_use]
    pub fn at(&self, path: &str) -> Option<&Value> {
        let mut value = &self.0;
        for name in path.split('.') {
            value = match value {
                Value::Array(items) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                    items.get(name.parse::<usize>().ok()?)?
                }
                Value::Object(members) => members.get(name)?,
                _ => return None,
            };
        }
        Some(value).filter(|value| !value.is_null())
    }
}

impl Deref for Vmi {
    type Target = Value;

    fn deref(&self) -> &Value {
        &self.0
    }
}
