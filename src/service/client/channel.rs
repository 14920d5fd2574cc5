//! One HTTP/2 connection to a socket, for the gRPC library's client.
//!
//! The library's own channel finds hosts by their names, balances between them and connects again.
//! None of it is of use here, and all of it, with glibc's resolver, would be in a static program.
//! Messages are bytes to it, so that there is one client in the program and not one for each pair
//! of messages.

use std::error::Error;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response};

/// HTTP/2's window for one stream and for the connection. With the default of 64 kB a document of 1
/// MB takes fifteen window updates.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// A connection. Its clones are the same one, which is closed when the last of them is dropped.
#[derive(Clone)]
pub(super) struct Channel(SendRequest<Body>);

impl Channel {
    /// Connects to a socket.
    pub(super) async fn connect(socket: &Path) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let stream = UnixStream::connect(socket).await?;
        let (requests, connection) = Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .handshake(TokioIo::new(stream))
            .await?;
        // What goes wrong with it is an error of the requests on it, too.
        tokio::spawn(connection);
        Ok(Self(requests))
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// A message that is put into a buffer once there is one.
pub(super) type Unencoded = Box<dyn FnOnce(&mut EncodeBuf<'_>) -> Result<(), Status> + Send + Sync>;

/// A message for [`Bytewise`].
pub(super) fn unencoded(message: impl Message + 'static) -> Unencoded {
    Box::new(move |buffer| {
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    })
}

/// A codec that leaves it to its user what the messages are.
pub(super) struct Bytewise;

impl Codec for Bytewise {
    type Encode = Unencoded;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytewise {
    type Item = Unencoded;
    type Error = Status;

    fn encode(&mut self, message: Unencoded, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message(buffer)
    }
}

impl Decoder for Bytewise {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}
