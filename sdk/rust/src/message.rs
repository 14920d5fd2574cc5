//! Messages from the shim: assembles them from frames and extracts the documents of a call.
//!
//! The members of a message, and those of its `params`, stay text until they are needed. What a
//! `Value` cannot hold (half a surrogate pair, a number beyond `f64`, deep nesting) is then a fault
//! of one document and one call.

use std::collections::HashMap;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use serde_json::error::Category;
use serde_json::value::RawValue;
use serde_json::Value;

use crate::call::Context;
use crate::error::Failure;
use crate::frame;
use crate::hook::{Kind, Subject};

/// The members of an object, as JSON text.
type Members = HashMap<String, Box<RawValue>>;

/// A request or a notification.
pub(crate) struct Message {
    pub(crate) method: String,
    /// `None` in a notification.
    pub(crate) id: Option<Value>,
    /// `None` if it is missing or not an object.
    params: Option<Members>,
    /// Attachments: their names and contents.
    attached: Vec<(String, Vec<u8>)>,
}

/// Reads the next message; `None` at EOF. After an error the stream cannot be resynchronized.
pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Message>> {
    while let Some(json) = frame::read(input)? {
        let mut message: Members = serde_json::from_slice(&json).map_err(|error| {
            io::Error::other(match error.classify() {
                Category::Data => "a message is not a JSON object".to_owned(),
                // The error names a position and quotes nothing.
                _ => format!("a frame is not valid JSON: {error}"),
            })
        })?;
        let attached = read_attached(message.remove("attachments"), input)?;
        let id = message.remove("id").map(|id| serde_json::from_str(id.get()));
        let id = id.transpose().map_err(|_| io::Error::other("a message's id cannot be read"))?;
        let params = message.remove("params");
        let params = params.and_then(|params| serde_json::from_str(params.get()).ok());
        // A message without a method is a response; workers send no requests, so it is ignored.
        if let Some(method) = message.remove("method").and_then(|name| method(&name)) {
            return Ok(Some(Message { method, id, params, attached }));
        }
    }
    Ok(None)
}

/// Reads the frames that follow a message. This is needed even if the message is then ignored.
fn read_attached(
    names: Option<Box<RawValue>>,
    input: &mut impl Read,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    // They may be `null`.
    let names: Option<Option<Vec<String>>> = names
        .map(|names| serde_json::from_str(names.get()))
        .transpose()
        .map_err(|_| io::Error::other("\"attachments\" is not an array of names"))?;
    let mut attached = Vec::new();
    for name in names.flatten().unwrap_or_default() {
        let Some(bytes) = frame::read(input)? else {
            return Err(io::Error::other("EOF before an announced attachment"));
        };
        attached.push((name, bytes));
    }
    Ok(attached)
}

/// Returns the name in `"method"`. `None` if it is not a string.
fn method(json: &RawValue) -> Option<String> {
    // Half a surrogate pair is in no name of a method.
    json.get().starts_with('"').then(|| serde_json::from_str(json.get()).unwrap_or_default())
}

impl Message {
    /// Returns a field of `params`; `Null` if it is missing, or if a `Value` cannot hold it.
    pub(crate) fn param(&self, name: &str) -> Value {
        let json = self.params.as_ref().and_then(|params| params.get(name));
        json.and_then(|json| serde_json::from_str(json.get()).ok()).unwrap_or_default()
    }

    /// Takes the documents of a call out of the message: the VMI and the subject.
    pub(crate) fn take_documents(&mut self, kind: Kind) -> Result<(Value, Subject), Failure> {
        if self.params.is_none() {
            return Err(Failure::invalid_params("params is missing or not an object"));
        }
        let vmi = self
            .take_object("vmi")
            .ok_or(Failure::invalid_params("vmi is missing or not an object"))?;
        let subject = match kind {
            Kind::Domain => Subject::Domain(self.take_domain()?),
            Kind::CloudInit => Subject::CloudInit(
                self.take_object("cloudInitData")
                    .ok_or(Failure::invalid_params("cloudInitData is missing or not an object"))?,
            ),
            Kind::Node => match self.param("nodeName") {
                Value::String(node) => Subject::Node(node),
                _ => {
                    return Err(Failure::invalid_params("nodeName is missing or not a string"));
                }
            },
        };
        Ok((vmi, subject))
    }

    fn take_domain(&mut self) -> Result<String, Failure> {
        if let Some(bytes) = self.take_attached("domain") {
            return String::from_utf8(bytes)
                .map_err(|_| Failure::invalid_params("domain is not UTF-8"));
        }
        let json = self.params.as_mut().and_then(|params| params.remove("domain"));
        json.and_then(|json| serde_json::from_str(json.get()).ok())
            .ok_or(Failure::invalid_params("domain is missing or not a string"))
    }

    fn take_object(&mut self, name: &str) -> Option<Value> {
        let value: Value = match self.take_attached(name) {
            Some(bytes) => serde_json::from_slice(&bytes).ok()?,
            None => serde_json::from_str(self.params.as_mut()?.remove(name)?.get()).ok()?,
        };
        value.is_object().then_some(value)
    }

    fn take_attached(&mut self, name: &str) -> Option<Vec<u8>> {
        let found = self.attached.iter().position(|(attached, _)| attached == name);
        found.map(|at| self.attached.swap_remove(at).1)
    }

    /// Reads the attempt, the context and the deadline of the call. Each of them may be missing.
    pub(crate) fn invocation(&self) -> (u64, Option<Context>, Option<Instant>) {
        let invocation = self.param("invocation");
        let deadline = invocation["deadlineMs"].as_u64().map(Duration::from_millis);
        (
            invocation["attempt"].as_u64().unwrap_or(1),
            invocation["context"].as_str().map(Context::from),
            deadline.and_then(|left| Instant::now().checked_add(left)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads one message of this JSON.
    fn message(json: &str) -> io::Result<Message> {
        let length = u32::try_from(json.len()).unwrap().to_be_bytes();
        let frame = [&length[..], json.as_bytes()].concat();
        read(&mut &frame[..]).map(|message| message.unwrap())
    }

    #[test]
    fn a_document_that_a_value_cannot_hold_is_the_fault_of_its_call() {
        for value in [r#""\ud800""#, r#"{"\udc00":1}"#, "1e400", "-1e999"] {
            let call = |params: &str| {
                let json = format!(r#"{{"id":7,"method":"preCloudInitIso","params":{params}}}"#);
                let mut message = message(&json).unwrap();
                assert_eq!(message.id, Some(Value::from(7)));
                message.take_documents(Kind::CloudInit).map(|_| ()).unwrap_err()
            };
            let vmi = call(&format!(r#"{{"vmi":{{"a":{value}}},"cloudInitData":{{}}}}"#));
            assert_eq!((vmi.code, &*vmi.message), (-32602, "vmi is missing or not an object"));
            let data = call(&format!(r#"{{"vmi":{{}},"cloudInitData":{{"a":[{value}]}}}}"#));
            let expected = "cloudInitData is missing or not an object";
            assert_eq!((data.code, &*data.message), (-32602, expected));
        }
        let json = r#"{"id":8,"method":"onDefineDomain","params":{"vmi":{},"domain":"\ud800"}}"#;
        let domain = message(json).unwrap().take_documents(Kind::Domain).map(|_| ()).unwrap_err();
        assert_eq!((domain.code, &*domain.message), (-32602, "domain is missing or not a string"));
    }

    #[test]
    fn what_no_hook_reads_may_hold_anything() {
        let mut message = message(
            r#"{"id":9,"later":"\ud800","method":"preVMStart",
                "params":{"later":1e400,"vmi":{"a":1},"nodeName":"n","invocation":{"attempt":1e400}}}"#,
        )
        .unwrap();
        assert_eq!(message.invocation().0, 1);
        let (vmi, _) =
            message.take_documents(Kind::Node).map_err(|failure| failure.message).unwrap();
        assert_eq!(vmi["a"], 1);
    }

    #[test]
    fn an_envelope_that_cannot_be_read_ends_the_stream() {
        for (json, fault) in [
            (r#"{"id":1e400,"method":"preVMStart"}"#, "a message's id cannot be read"),
            ("[]", "a message is not a JSON object"),
            (r#"{"id":1,"attachments":[1]}"#, "\"attachments\" is not an array of names"),
        ] {
            let error = message(json).map(|_| ()).unwrap_err();
            assert_eq!(error.to_string(), fault);
        }
    }
}
