//! The baseline: a gRPC server in Rust on a Unix socket that does nothing, or only
//! runs a program. No shim on the same library can be faster.

use std::ffi::{OsStr, OsString};
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::task::{Context, Poll};

use anyhow::Result;
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;
use tokio_stream::Stream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use self::proto::callbacks_server::{Callbacks, CallbacksServer};
use self::proto::{
    OnDefineDomainParams, OnDefineDomainResult, PreCloudInitIsoParams, PreCloudInitIsoResult,
    ShutdownParams, ShutdownResult,
};

/// The windows of the shim: with the library's own, of 64 kB, a long document waits for updates.
const WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// The longest HTTP/2 frame, as the shim's.
const HTTP2_FRAME_BYTES: u32 = 1024 * 1024;

/// The largest block that was freed decides how much memory glibc keeps: as in the shim.
const LARGEST_BLOCK: usize = 8 << 20;

/// More than the longest document of the measurement.
const MAX_MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// The service that `proto/` defines.
#[allow(clippy::all, clippy::pedantic, unreachable_pub, reason = "generated")]
mod proto {
    tonic::include_proto!("kubevirt.hooks.v1alpha3");
}

struct Baseline {
    /// The program that makes the answer; without it, domains are returned unchanged.
    program: Option<OsString>,
}

#[tonic::async_trait]
impl Callbacks for Baseline {
    async fn on_define_domain(
        &self,
        request: Request<OnDefineDomainParams>,
    ) -> Result<Response<OnDefineDomainResult>, Status> {
        let OnDefineDomainParams { domain_xml, vmi } = request.into_inner();
        let domain_xml = match &self.program {
            None => domain_xml,
            Some(program) => output(program, &vmi, &domain_xml).await?.into(),
        };
        Ok(Response::new(OnDefineDomainResult { domain_xml }))
    }

    async fn pre_cloud_init_iso(
        &self,
        _: Request<PreCloudInitIsoParams>,
    ) -> Result<Response<PreCloudInitIsoResult>, Status> {
        Err(Status::unimplemented("the baseline has one method"))
    }

    async fn shutdown(
        &self,
        _: Request<ShutdownParams>,
    ) -> Result<Response<ShutdownResult>, Status> {
        Err(Status::unimplemented("the baseline has one method"))
    }
}

/// Runs a program with the documents, in the shortest way that the runtime has.
async fn output(program: &OsStr, vmi: &[u8], domain: &[u8]) -> Result<Vec<u8>, Status> {
    let output = Command::new(program)
        .arg("--vmi")
        .arg(OsStr::from_bytes(vmi))
        .arg("--domain")
        .arg(OsStr::from_bytes(domain))
        .stdin(Stdio::null())
        .output()
        .await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    Err(Status::internal(format!("the program exited: {}: {stderr}", output.status)))
}

/// Serves until it is killed: with the library's defaults or, `tuned`, with the shim's windows and
/// memory that is kept between calls. A `program` makes the answers.
pub async fn serve(socket: &Path, tuned: bool, program: Option<OsString>) -> Result<()> {
    if tuned {
        drop(black_box(Vec::<u8>::with_capacity(LARGEST_BLOCK)));
    }
    let callbacks = CallbacksServer::new(Baseline { program })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    Server::builder()
        .initial_stream_window_size(tuned.then_some(WINDOW_BYTES))
        .initial_connection_window_size(tuned.then_some(WINDOW_BYTES))
        .max_frame_size(tuned.then_some(HTTP2_FRAME_BYTES))
        .add_service(callbacks)
        .serve_with_incoming(Incoming(UnixListener::bind(socket)?))
        .await?;
    Ok(())
}

/// Connections as a stream.
struct Incoming(UnixListener);

impl Stream for Incoming {
    type Item = std::io::Result<UnixStream>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_accept(context).map_ok(|(stream, _)| stream).map(Some)
    }
}
