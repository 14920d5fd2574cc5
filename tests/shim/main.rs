//! The binary, driven from outside as KubeVirt drives it.

#![expect(clippy::disallowed_types, reason = "tests start processes and speak gRPC themselves")]
#![expect(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test may panic")]

mod support;

mod bad_input;
mod call;
mod contract;
mod exec;
//mod other_clients;
mod persistent;
//mod protocol_page;
