//! Messages from the shim: assembles them from frames and extracts the documents of a call.

use std::io::{self, Read};
use std::mem;
use std::time::{Duration, Instant};

use serde_json::{Map, Value};

use crate::error::Failure;
use crate::frame;
use crate::hook::{Kind, Subject};

/// A request or a notification.
pub(crate) struct Message {
    pub(crate) method: String,
    /// `None` in a notification.
    pub(crate) id: Option<Value>,
    params: Value,
    /// Attachments: their names and contents.
    attached: Vec<(String, Vec<u8>)>,
}

/// Reads the next message; `None` at EOF. After an error the stream cannot be resynchronized.
pub(crate) fn read(input: &mut impl Read) -> io::Result<Option<Message>> {
    while let Some(json) = frame::read(input)? {
        let mut message = match serde_json::from_slice(&json) {
            Ok(Value::Object(message)) => message,
            Ok(_) => return Err(io::Error::other("a message is not a JSON object")),
            // The error names a position and quotes nothing.
            Err(error) => {
                return Err(io::Error::other(format!("a frame is not valid JSON: {error}")))
            }
        };
        let attached = read_attached(message.remove("attachments"), input)?;
        let (id, params) = (message.remove("id"), message.remove("params").unwrap_or_default());
        // A message without a method is a response; workers send no requests, so it is ignored.
        if let Some(Value::String(method)) = message.remove("method") {
            return Ok(Some(Message { method, id, params, attached }));
        }
    }
    Ok(None)
}

/// Reads the frames that follow a message. This is needed even if the message is then ignored.
fn read_attached(
    names: Option<Value>,
    input: &mut impl Read,
) -> io::Result<Vec<(String, Vec<u8>)>> {
    let names = match names.unwrap_or_default() {
        Value::Null => return Ok(Vec::new()),
        Value::Array(names) => names,
        _ => return Err(io::Error::other("\"attachments\" is not an array")),
    };
    let mut attached = Vec::new();
    for name in names {
        let Value::String(name) = name else {
            return Err(io::Error::other("an attachment's name is not a string"));
        };
        let Some(bytes) = frame::read(input)? else {
            return Err(io::Error::other("EOF before an announced attachment"));
        };
        attached.push((name, bytes));
    }
    Ok(attached)
}

impl Message {
    /// Returns a field of `params`; `Null` if it is missing.
    pub(crate) fn param(&self, name: &str) -> &Value {
        &self.params[name]
    }

    /// Takes the documents of a call out of the message: the VMI and the subject.
    pub(crate) fn take_documents(&mut self, kind: Kind) -> Result<(Value, Subject), Failure> {
        if !self.params.is_object() {
            return Err(Failure::invalid_params("params is missing or not an object"));
        }
        let vmi = self
            .take_object("vmi")
            .ok_or(Failure::invalid_params("vmi is missing or not an object"))?;
        let subject = match kind {
            Kind::Domain => Subject::Domain(self.take_domain()?),
            Kind::CloudInit => Subject::CloudInit(Value::Object(
                self.take_object("cloudInitData")
                    .ok_or(Failure::invalid_params("cloudInitData is missing or not an object"))?,
            )),
            Kind::Node => match self.params["nodeName"].take() {
                Value::String(node) => Subject::Node(node),
                _ => {
                    return Err(Failure::invalid_params("nodeName is missing or not a string"));
                }
            },
        };
        Ok((Value::Object(vmi), subject))
    }

    fn take_domain(&mut self) -> Result<String, Failure> {
        if let Some(bytes) = self.take_attached("domain") {
            return String::from_utf8(bytes)
                .map_err(|_| Failure::invalid_params("domain is not UTF-8"));
        }
        match self.params["domain"].take() {
            Value::String(domain) => Ok(domain),
            _ => Err(Failure::invalid_params("domain is missing or not a string")),
        }
    }

    fn take_object(&mut self, name: &str) -> Option<Map<String, Value>> {
        let value = match self.take_attached(name) {
            Some(bytes) => serde_json::from_slice(&bytes).ok()?,
            None => self.params[name].take(),
        };
        match value {
            Value::Object(object) => Some(object),
            _ => None,
        }
    }

    fn take_attached(&mut self, name: &str) -> Option<Vec<u8>> {
        let found = self.attached.iter_mut().find(|(attached, _)| attached == name);
        found.map(|(_, bytes)| mem::take(bytes))
    }

    /// Reads the attempt, the context and the deadline of the call. Each of them may be missing.
    pub(crate) fn invocation(&self) -> (u64, Option<String>, Option<Instant>) {
        let invocation = self.param("invocation");
        let deadline = invocation["deadlineMs"].as_u64().map(Duration::from_millis);
        (
            invocation["attempt"].as_u64().unwrap_or(1),
            invocation["context"].as_str().map(str::to_owned),
            deadline.and_then(|left| Instant::now().checked_add(left)),
        )
    }
}
