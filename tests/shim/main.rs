//! The program, driven from outside as KubeVirt drives it.

#![expect(clippy::disallowed_types, reason = "tests start processes and speak gRPC")]
#![expect(clippy::unwrap_used, clippy::expect_used, unreachable_pub, reason = "a test may panic")]
#![expect(
    clippy::case_sensitive_file_extension_comparisons,
    clippy::format_collect,
    reason = "neither matters in a test"
)]

mod support;

mod bad_input;
mod chaos;
mod cloud_init;
mod connections;
mod contract;
mod escapes;
mod examples;
mod exec;
mod exit_status;
mod failed_start;
mod harmless;
mod health;
mod hostile;
mod identity;
mod lifetime;
mod memory;
mod metrics;
mod node_wide;
mod options;
mod orphans;
mod other_clients;
mod persistent;
mod plugin_socket;
mod plugins;
mod pool;
mod pressure;
mod protocol_page;
mod raw;
mod record;
mod search;
mod secrets;
mod status;
mod statuses;
mod stderr;
mod unread;
