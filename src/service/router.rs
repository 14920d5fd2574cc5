//! Passes each request to its service, which the path names: `/<package>.<Service>/<Method>`.
//!
//! tonic's own router is axum's. It would make the program 2 % larger, and box each request's body
//! once more.

use std::convert::Infallible;
use std::sync::Arc;

use hyper::body::Incoming;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{BoxFuture, Service};
use tonic::server::NamedService;

/// The future of a service that `proto/` generates.
type Reply = BoxFuture<Response<Body>, Infallible>;

type Handler = Box<dyn Fn(Request<Incoming>) -> Reply + Send + Sync>;

/// The services of one socket.
#[derive(Default)]
pub(super) struct Router {
    services: Vec<(&'static str, Handler)>,
}

impl Router {
    pub(super) fn add<S>(mut self, service: S) -> Self
    where
        S: Service<
                Request<Incoming>,
                Response = Response<Body>,
                Error = Infallible,
                Future = Reply,
            >,
        S: NamedService + Clone + Send + Sync + 'static,
    {
        // It is always ready: it holds a reference to the shim, and no connection.
        let handler = move |request| service.clone().call(request);
        self.services.push((S::NAME, Box::new(handler)));
        self
    }

    /// The names of the services so far.
    pub(super) fn names(&self) -> Vec<&'static str> {
        self.services.iter().map(|(name, _)| *name).collect()
    }

    /// Returns what hyper calls for each request.
    pub(super) fn into_service(self) -> RouterService {
        RouterService(Arc::new(self))
    }
}

/// A router that all connections of a socket share.
#[derive(Clone)]
pub(super) struct RouterService(Arc<Router>);

impl hyper::service::Service<Request<Incoming>> for RouterService {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Reply;

    fn call(&self, request: Request<Incoming>) -> Reply {
        let named = request.uri().path().split('/').nth(1);
        match self.0.services.iter().find(|(name, _)| named == Some(name)) {
            Some((_, handler)) => handler(request),
            // As tonic does for a method that a service does not have.
            None => Box::pin(async { Ok(Status::unimplemented("").into_http()) }),
        }
    }
}
