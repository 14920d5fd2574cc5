//! What a worker declares in its reply to `initialize`.

use std::fmt;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::read::{parse, present};
use super::{ErrorKind, ErrorObject, MAX_CONCURRENCY, Malformed, Outcome, PROTOCOL_VERSION};
use crate::hook::HookName;
use crate::text::{clip, escape_line};

/// Maximum number of a worker's versions in an error.
const MAX_SHOWN_VERSIONS: usize = 8;

/// Maximum length of the name or version of a program.
const MAX_NAME_BYTES: usize = 64;

/// What a worker declares in its reply to `initialize`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// Its program, if it says which one that is.
    pub program: Option<NameAndVersion>,
    /// The SDK that it is written with.
    pub sdk: Option<NameAndVersion>,
    /// Its hooks, sorted.
    pub hooks: Vec<HookName>,
    /// Whether it accepts attachments.
    pub attachments: bool,
    /// Whether it understands `$/cancelRequest`.
    pub cancel: bool,
    /// Maximum number of calls in flight, from 1 to [`MAX_CONCURRENCY`].
    pub concurrency: usize,
}

/// A program or library, as it names itself: for people, bounded and harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameAndVersion(String);

impl fmt::Display for NameAndVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl NameAndVersion {
    /// Reads it from JSON. Another kind of value counts as missing: only people read it, so it
    /// cannot be a reason to refuse a worker.
    fn read(json: Option<&RawValue>) -> Option<Self> {
        #[derive(Deserialize)]
        struct Said {
            name: String,
            #[serde(default)]
            version: String,
        }
        let Said { name, version } = serde_json::from_str(json?.get()).ok()?;
        let part = |text: &str| clip(&escape_line(text), MAX_NAME_BYTES).trim().to_owned();
        let (name, version) = (part(&name), part(&version));
        Some(Self(format!("{name} {version}").trim().to_owned())).filter(|it| !it.0.is_empty())
    }
}

impl Declared {
    /// Reads the reply to `initialize`.
    pub fn read(outcome: &Outcome) -> Result<Self, Malformed> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct InitializeResult<'a> {
            protocol_version: u64,
            #[serde(borrow)]
            worker: Option<&'a RawValue>,
            #[serde(borrow)]
            sdk: Option<&'a RawValue>,
            hooks: Vec<String>,
            #[serde(borrow, default, deserialize_with = "present")]
            capabilities: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        #[serde(default)]
        struct Capabilities {
            attachments: bool,
            cancel: bool,
            concurrency: u64,
        }
        impl Default for Capabilities {
            fn default() -> Self {
                Self { attachments: false, cancel: false, concurrency: 1 }
            }
        }

        let parts = match outcome {
            Outcome::Result(parts) => parts,
            Outcome::Error(error) => return Err(refusal(error)),
        };
        let result: InitializeResult<'_> = parse(&parts.json, "the result of initialize")?;
        if result.protocol_version.to_string() != PROTOCOL_VERSION {
            return Err(Malformed(format!(
                "it chose protocol version {}, and this shim speaks {PROTOCOL_VERSION}",
                result.protocol_version
            )));
        }
        let mut hooks = Vec::new();
        for name in &result.hooks {
            let hook = HookName::parse(name).ok_or_else(|| {
                Malformed(
                    "it declares a hook whose name is not a lower-case letter followed by letters \
                     and digits"
                        .to_owned(),
                )
            })?;
            if let Some(point) = hook.reserved_for() {
                return Err(Malformed(format!(
                    "it declares {hook}, a name that is reserved for the hook point {point} of \
                     KubeVirt 1.10's virt-launcher, which this version of sidecar-shim does not \
                     serve: do not declare it"
                )));
            }
            hooks.push(hook);
        }
        hooks.sort();
        hooks.dedup();
        if hooks.is_empty() {
            return Err(Malformed("it declares no hooks".to_owned()));
        }
        let Capabilities { attachments, cancel, concurrency } = match result.capabilities {
            Some(json) => {
                parse(json.get().as_bytes(), "the value of capabilities that it declares")?
            }
            None => Capabilities::default(),
        };
        if concurrency == 0 {
            return Err(Malformed("it declares a concurrency of 0".to_owned()));
        }
        Ok(Self {
            program: NameAndVersion::read(result.worker),
            sdk: NameAndVersion::read(result.sdk),
            hooks,
            attachments,
            cancel,
            concurrency: usize::try_from(concurrency).unwrap_or(usize::MAX).min(MAX_CONCURRENCY),
        })
    }
}

fn refusal(error: &ErrorObject) -> Malformed {
    Malformed(match error.protocol_versions() {
        Some(mut versions) => {
            versions.truncate(MAX_SHOWN_VERSIONS);
            format!(
                "it speaks protocol versions {versions:?}, and this shim speaks \
                 [{PROTOCOL_VERSION}]"
            )
        }
        None => format!("it refused initialize: {error}"),
    })
}

impl ErrorObject {
    /// Returns the versions of a worker that speaks none of the shim's: `data.protocolVersions` of
    /// the error.
    #[must_use]
    pub fn protocol_versions(&self) -> Option<Vec<u64>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Data {
            protocol_versions: Vec<u64>,
        }
        let data = self.data.as_ref().filter(|_| self.kind() == ErrorKind::InvalidParams)?;
        let data: Data = serde_json::from_str(data.get()).ok()?;
        Some(data.protocol_versions)
    }
}
