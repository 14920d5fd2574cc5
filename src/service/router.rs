//! Finds the method of a request by its path, `/<package>.<Service>/<Method>`, decodes its message
//! and encodes its reply.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::MAX_SHOWN_BYTES;
use super::health::Watch;
use super::record::CallRecord;
use super::request::PREFIX_BYTES;
use super::shim::Shim;
use crate::error::{CallError, RequestFault};
use crate::text::clip;

/// The beginning of the paths of the Plugins API's methods.
const PLUGINS: &str = "/kubevirt.hooks.plugins.v1alpha1.";

type Reply = Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send>>;

/// How a method is run.
pub(super) enum Kind {
    /// One message in, one message out.
    Unary(Box<dyn Fn(Bytes, Arc<CallRecord>) -> Reply + Send + Sync>),
    /// Health's `Watch`.
    Watch(Watch),
}

/// A method of a service.
pub(super) struct Method {
    pub(super) path: &'static str,
    /// The number of documents in its request; 0 for a method that needs none of the budget.
    pub(super) documents: usize,
    pub(super) kind: Kind,
}

/// The methods of one socket.
#[derive(Default)]
pub(super) struct Router(Vec<Method>);

impl Router {
    /// Adds a method whose request contains this many documents.
    pub(super) fn unary<P, R, F>(
        mut self,
        path: &'static str,
        documents: usize,
        shim: &Arc<Shim>,
        run: impl Fn(Arc<Shim>, P, Arc<CallRecord>) -> F + Clone + Send + Sync + 'static,
    ) -> Self
    where
        P: prost::Message + Default + 'static,
        R: prost::Message + 'static,
        F: Future<Output = Result<R, CallError>> + Send + 'static,
    {
        let shim = shim.clone();
        let kind = Kind::Unary(Box::new(move |message, record| {
            let (shim, run) = (shim.clone(), run.clone());
            Box::pin(async move {
                let params = P::decode(message)
                    .map_err(|error| RequestFault::NotDecoded(error.to_string()))?;
                Ok(encode(&run(shim, params, record).await?))
            })
        }));
        self.0.push(Method { path, documents, kind });
        self
    }

    pub(super) fn watch(mut self, path: &'static str, watch: Watch) -> Self {
        self.0.push(Method { path, documents: 0, kind: Kind::Watch(watch) });
        self
    }

    pub(super) fn find(&self, path: &str) -> Option<&Method> {
        self.0.iter().find(|method| method.path == path)
    }

    /// Returns the error for a path without a method.
    pub(super) fn unknown(&self, path: &str) -> RequestFault {
        let show = |text| clip(text, MAX_SHOWN_BYTES).escape_debug().to_string();
        let of_plugins = |path| str::strip_prefix(path, PLUGINS);
        let served: Vec<_> = self.0.iter().filter_map(|method| of_plugins(method.path)).collect();
        match of_plugins(path) {
            Some(method) if !served.is_empty() => RequestFault::UnknownPluginMethod {
                method: show(method),
                served: served.join(", "),
            },
            _ => RequestFault::UnknownMethod {
                method: show(path),
                served: self.services().join(", "),
            },
        }
    }

    /// Returns the full names of the services.
    pub(super) fn services(&self) -> Vec<&'static str> {
        let mut names: Vec<_> =
            self.0.iter().filter_map(|method| method.path.split('/').nth(1)).collect();
        names.dedup();
        names
    }
}

/// Encodes a message as gRPC sends it: uncompressed, after its length.
pub(super) fn encode(message: &impl prost::Message) -> Bytes {
    let bytes = message.encoded_len();
    let mut encoded = BytesMut::with_capacity(PREFIX_BYTES + bytes);
    encoded.put_u8(0);
    encoded.put_u32(u32::try_from(bytes).unwrap_or(u32::MAX));
    // Cannot fail: the buffer grows.
    let _ = message.encode(&mut encoded);
    encoded.freeze()
}
