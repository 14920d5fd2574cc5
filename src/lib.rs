//! `sidecar-shim` runs KubeVirt's hooks: a gRPC server on Unix sockets on one side, hook
//! processes on the other.
//!
//! ```text
//! KubeVirt ──gRPC──▶ service ──HookCall──▶ backend ─┬─ exec   one process for each call
//!                                                   └─ pool ─▶ worker ─▶ rpc ─▶ frame ─▶ pipes
//! ```
//!
//! From the top down; each module uses only what stands below it:
//!
//! | module | is about |
//! |---|---|
//! | [`cli`] | flags and environment, validated, as plain configurations |
//! | [`commands`] | `serve`, `health` and `status` |
//! | [`server`] | sockets, and the order of start and shutdown |
//! | [`metrics`] | metrics for Prometheus, and HTTP for them |
//! | [`service`] | the gRPC services, one thin file each |
//! | [`recording`] | calls as cases on a disk, off by default |
//! | [`stats`] | what has happened since the start: counts, times, the last failures |
//! | [`backend`] | exec mode and the pool of workers |
//! | [`admission`] | how many calls and bytes may be held at a time |
//! | [`rpc`] | messages of the worker protocol |
//! | [`error`] | errors, split by consequence |
//! | [`frame`] | the frame codec |
//! | [`hook`] | a hook call, its documents and their validation |
//! | [`logging`] | log lines |
//! | [`stdio`] | stdout and stderr, whatever they are |
//! | [`text`] | texts made harmless, and cut to a maximum length |
//! | `sys` | system calls without a safe wrapper, all unsafe code |
//!
//! The library exists for the program, for `hookctl` and for the tests; its interface is not
//! stable.

#![deny(unsafe_code)]

pub mod admission;
pub mod backend;
pub mod cli;
pub mod commands;
pub mod error;
pub mod frame;
pub mod hook;
pub mod logging;
pub mod metrics;
pub mod recording;
pub mod rpc;
pub mod server;
pub mod service;
pub mod stats;
pub mod stdio;
mod sys;
pub mod text;
