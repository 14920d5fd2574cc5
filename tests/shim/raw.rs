//! A client that speaks HTTP/2 by hand: it sends what no gRPC library would, and stops where it
//! likes.

use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::{HeaderMap, Request};
use prost::Message;
use sidecar_shim::service::proto::v1alpha3::OnDefineDomainParams;
use tokio::net::UnixStream;

/// The path of the method that most tests call.
pub const ON_DEFINE_DOMAIN: &str = "/kubevirt.hooks.v1alpha3.Callbacks/OnDefineDomain";

/// One connection.
pub struct RawClient(SendRequest<Bytes>);

/// A response, as far as a test looks at it.
#[derive(Debug)]
pub struct RawStatus {
    pub http: u16,
    /// `grpc-status`.
    pub code: String,
    /// `grpc-message`, as it was sent.
    pub message: String,
}

impl RawClient {
    pub async fn dial(socket: &Path) -> Self {
        Self::with(&Builder::new(), socket).await
    }

    pub async fn with(builder: &Builder, socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).await.unwrap();
        let (client, connection) = builder.handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self(client)
    }

    /// Sends the headers of a call.
    pub async fn begin(
        &mut self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> (ResponseFuture, SendStream<Bytes>) {
        let mut request = Request::post(format!("http://localhost{path}"));
        let mut has_type = false;
        for (name, value) in headers {
            has_type |= *name == "content-type";
            request = request.header(*name, *value);
        }
        if !has_type {
            request = request.header("content-type", "application/grpc");
        }
        self.send(request.body(()).unwrap()).await
    }

    pub async fn send(&mut self, request: Request<()>) -> (ResponseFuture, SendStream<Bytes>) {
        let mut ready = self.0.clone().ready().await.unwrap();
        ready.send_request(request, false).unwrap()
    }

    /// Sends a whole call, and returns its status.
    pub async fn call(
        &mut self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> RawStatus {
        let (response, mut stream) = self.begin(path, headers).await;
        stream.send_data(body, true).unwrap();
        status(response).await.unwrap()
    }
}

/// Waits for a response and reads it to its end.
pub async fn status(response: ResponseFuture) -> Result<RawStatus, h2::Error> {
    let (head, mut body) = response.await?.into_parts();
    while let Some(chunk) = body.data().await {
        let bytes = chunk?.len();
        body.flow_control().release_capacity(bytes)?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    let find = |headers: &HeaderMap, name| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let field = |name| find(&trailers, name).or_else(|| find(&head.headers, name));
    Ok(RawStatus {
        http: head.status.as_u16(),
        code: field("grpc-status").unwrap_or_default(),
        message: field("grpc-message").unwrap_or_default().replace("%20", " "),
    })
}

/// What precedes a message of this length.
pub fn prefix(bytes: usize) -> Bytes {
    let mut prefix = BytesMut::new();
    prefix.put_u8(0);
    prefix.put_u32(u32::try_from(bytes).unwrap());
    prefix.freeze()
}

/// A request of `OnDefineDomain`, as gRPC sends it.
pub fn define_message(vmi: &str, domain: &str) -> Bytes {
    let (vmi, domain_xml) = (vmi.to_owned().into(), domain.to_owned().into());
    let message = OnDefineDomainParams { domain_xml, vmi }.encode_to_vec();
    [&prefix(message.len())[..], &message].concat().into()
}
