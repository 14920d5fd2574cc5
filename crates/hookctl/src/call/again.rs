//! The step after a call: the hook gets its own result, as KubeVirt rewrites it. That is what
//! happens in a boot, so a hook that changes its result again would change a VM twice.
//!
//! Cloud-init data has no such step: KubeVirt reads it from the VM's volumes for each call.

use std::path::Path;

use bytes::Bytes;
use sidecar_shim::hook::HookKind;
use sidecar_shim::service::Api;
use sidecar_shim::service::client::{Client, ClientError};

use super::exchange::call_once;
use super::{CallConfig, diff};
use crate::inputs::Documents;
use crate::normalize::normalize;
use crate::rewrite::{NOT_MODELLED, Receiver};

/// The second call.
pub(super) struct Again {
    /// The result as KubeVirt rewrites it.
    sent: Bytes,
    /// The next result, rewritten too: what KubeVirt drops does not count.
    reply: Result<Bytes, ClientError>,
}

/// Calls a domain hook with its result, unless that is the domain that it got.
pub(super) async fn call(
    config: &CallConfig,
    socket: &Path,
    api: Api,
    documents: &Documents,
    result: &Bytes,
) -> Option<Again> {
    if config.hook.kind() != HookKind::Domain || *result == documents.domain {
        return None;
    }
    let receiver = Receiver::same(api);
    let sent = receiver.rewrite_document(result)?;
    let documents = Documents { domain: sent.clone(), ..documents.clone() };
    let reply = match Client::dial(socket).await {
        Ok(client) => call_once(config, &client, api, &documents).await,
        Err(error) => Err(error),
    };
    let reply = reply.map(|reply| receiver.rewrite_document(&reply).unwrap_or(reply));
    Some(Again { sent, reply })
}

impl Again {
    /// Returns what the hook did, in a few words.
    pub(super) fn summary(&self) -> String {
        match &self.reply {
            Err(error) => format!("failed: {error}"),
            Ok(reply) if self.is_unchanged(reply) => "unchanged".to_owned(),
            Ok(_) => "changed, so the hook is not idempotent".to_owned(),
        }
    }

    /// Returns the difference, and how the result was sent. Empty if the hook left it alone.
    pub(super) fn details(&self, color: bool) -> String {
        if self.reply.as_ref().is_ok_and(|reply| self.is_unchanged(reply)) {
            return String::new();
        }
        let difference = self.difference(color).unwrap_or_default();
        let how = "its own result was sent as KubeVirt rewrites it, except for";
        format!("{difference}({how} {NOT_MODELLED})\n")
    }

    /// Returns what the hook changed in its own result.
    pub(super) fn difference(&self, color: bool) -> Option<String> {
        let reply = self.reply.as_ref().ok().filter(|reply| !self.is_unchanged(reply))?;
        let names = ["sent again", "returned again"];
        Some(diff::unified(HookKind::Domain, names, [&self.sent, reply], color))
    }

    /// Returns why the call failed, if it did.
    pub(super) fn error(&self) -> Option<&ClientError> {
        self.reply.as_ref().err()
    }

    fn is_unchanged(&self, reply: &[u8]) -> bool {
        domain(&self.sent) == domain(reply)
    }
}

fn domain(document: &[u8]) -> String {
    normalize(HookKind::Domain, document)
}
