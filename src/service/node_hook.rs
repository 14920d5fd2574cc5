//! `kubevirt.hooks.plugins.v1alpha1.NodeHookService`: hooks that run on the node of a VM.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::MAX_REQUEST_BYTES;
use super::proto::plugins::node_hook_service_server::{NodeHookService, NodeHookServiceServer};
use super::proto::plugins::{ExecuteNodeHookRequest, ExecuteNodeHookResponse, NodeContext};
use super::shim::{Shim, no_such_hook_point};
use crate::hook::{HookCall, HookName};

struct Service(Arc<Shim>);

pub(super) fn service(shim: Arc<Shim>) -> NodeHookServiceServer<impl NodeHookService> {
    NodeHookServiceServer::new(Service(shim)).max_decoding_message_size(MAX_REQUEST_BYTES)
}

#[tonic::async_trait]
impl NodeHookService for Service {
    async fn execute_node_hook(
        &self,
        request: Request<ExecuteNodeHookRequest>,
    ) -> Result<Response<ExecuteNodeHookResponse>, Status> {
        tracing::info!("ExecuteNodeHook method has been called");
        let ExecuteNodeHookRequest { hook_point, vmi, node_context } = request.get_ref().clone();
        // KubeVirt adds and renames hook points, so any name is accepted; the backend knows its
        // hooks.
        let Some(hook) = HookName::of_node_hook_point(&hook_point) else {
            return Err(no_such_hook_point(&hook_point));
        };
        let NodeContext { node_name } = node_context.unwrap_or_default();
        let call = HookCall::node_hook(hook.clone(), &vmi, node_name);
        self.0.call(&hook, &request, call).await?;
        Ok(Response::new(ExecuteNodeHookResponse {}))
    }
}
