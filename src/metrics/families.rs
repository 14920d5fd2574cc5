//! The metrics, each with its help, its unit and its labels.

use std::fmt::{Error, Result};
use std::time::{Duration, SystemTime};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::Sources;
use super::process::ThisProcess;
use crate::backend::{BackendState, PoolHealth, PoolState, WorkerState};
use crate::stats::{Histogram, HookStats, Summary};

/// Bounds of the buckets of times, in seconds: from the fastest workers to KubeVirt's own deadline.
const BOUNDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// A format of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    OpenMetrics,
    /// Prometheus's older one, for clients that do not ask for the other.
    Text,
}

/// Returns all metrics as text.
pub(super) async fn text_of(sources: &Sources, format: Format) -> String {
    let state = sources.backend.state().await;
    let families = Families {
        state,
        summary: sources.stats.summary(),
        budget: sources.memory.limit() as u64,
        used: sources.memory.held().get() as u64,
        process: ThisProcess::read(),
    };
    let mut registry = Registry::default();
    registry.register_collector(Box::new(families));
    let mut page = String::new();
    // Cannot fail: it writes to memory.
    let _ = match format {
        Format::OpenMetrics => text::encode(&mut page, &registry),
        Format::Text => prometheus_text::encode(&mut page, &registry),
    };
    page
}

/// All that is known at one moment.
#[derive(Debug)]
struct Families {
    state: BackendState,
    summary: Summary,
    budget: u64,
    used: u64,
    process: ThisProcess,
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result {
        let mut writer = Writer(&mut encoder);
        self.build(&mut writer)?;
        self.calls(&mut writer)?;
        self.load(&mut writer)?;
        if let BackendState::Pools(pools) = &self.state {
            workers(&mut writer, pools)?;
        }
        self.process(&mut writer)
    }
}

impl Families {
    fn build(&self, writer: &mut Writer<'_, '_>) -> Result {
        let mode = match &self.state {
            BackendState::Exec(_) => "exec",
            BackendState::Pools(_) => "persistent",
        };
        let help = "Version and mode of the shim";
        let mut metric = writer.family("sidecar_shim_build", help, None, MetricType::Info)?;
        metric.encode_info(&[("version", env!("CARGO_PKG_VERSION")), ("mode", mode)])
    }

    fn calls(&self, writer: &mut Writer<'_, '_>) -> Result {
        let hooks = &self.summary.hooks;
        let help = "Calls of hooks that have ended";
        let mut metric = writer.family("sidecar_shim_calls", help, None, MetricType::Counter)?;
        for hook in hooks {
            // From the start, so that the first failures are an increase.
            let none =
                (!hook.statuses.iter().any(|(status, _)| *status == "OK")).then_some(("OK", 0));
            for (code, count) in hook.statuses.iter().copied().chain(none) {
                let labels = [("hook", &*hook.name), ("code", code)];
                ConstCounter::new(count).encode(metric.encode_family(&labels)?)?;
            }
        }
        let help = "Time of a call, from its first header until its reply";
        writer.times("sidecar_shim_call_duration", help, hooks, |hook| &hook.took)?;
        let help = "Time of a call until a process got it";
        writer.times("sidecar_shim_queue", help, hooks, |hook| &hook.queued)?;
        let retries = hooks.iter().map(|hook| (&*hook.name, hook.retried));
        let help = "Calls that had a second attempt";
        writer.counters("sidecar_shim_retries", help, "hook", retries)?;
        let refusals = self.summary.refusals.iter();
        let refusals = refusals.map(|(refusal, count)| (refusal.as_str(), *count));
        let help = "Requests that the shim itself refused";
        writer.counters("sidecar_shim_refusals", help, "why", refusals)
    }

    fn load(&self, writer: &mut Writer<'_, '_>) -> Result {
        let (running, waiting, bytes, limit) = match &self.state {
            BackendState::Exec(exec) => {
                (exec.running, exec.waiting.calls, exec.waiting.bytes, exec.max_processes)
            }
            BackendState::Pools(pools) => (
                pools.iter().map(|pool| pool.running).sum(),
                pools.iter().map(|pool| pool.waiting.calls).sum(),
                pools.iter().map(|pool| pool.waiting.bytes).sum(),
                pools.iter().map(|pool| pool.max_workers).sum(),
            ),
        };
        let bytes_unit = Some(&Unit::Bytes);
        for (name, help, unit, value) in [
            ("sidecar_shim_calls_running", "Calls that a process has", None, running),
            ("sidecar_shim_calls_waiting", "Calls that wait for a process", None, waiting),
            ("sidecar_shim_waiting", "Documents of calls that wait", bytes_unit, bytes),
            ("sidecar_shim_max_workers", "Limit of workers, or of running programs", None, limit),
        ] {
            writer.gauge(name, help, unit, value as u64)?;
        }
        let help = "Budget for connections and calls";
        writer.gauge("sidecar_shim_memory_budget", help, bytes_unit, self.budget)?;
        let help = "What connections and calls hold of the budget";
        writer.gauge("sidecar_shim_memory_used", help, bytes_unit, self.used)
    }

    /// The metrics that all programs have, by their common names.
    fn process(&self, writer: &mut Writer<'_, '_>) -> Result {
        let ThisProcess { cpu_seconds, resident_bytes, virtual_bytes, open_fds, max_fds } =
            self.process;
        let help = "Time that the shim has run on a CPU";
        let seconds = Some(&Unit::Seconds);
        let metric = writer.family("process_cpu", help, seconds, MetricType::Counter)?;
        ConstCounter::new(cpu_seconds).encode(metric)?;
        let started = self.summary.started.duration_since(SystemTime::UNIX_EPOCH);
        let help = "Time of the shim's start since 1970";
        let metric = writer.family("process_start_time", help, seconds, MetricType::Gauge)?;
        ConstGauge::new(started.unwrap_or_default().as_secs_f64()).encode(metric)?;
        let bytes = Some(&Unit::Bytes);
        writer.gauge(
            "process_resident_memory",
            "The shim's memory in RAM",
            bytes,
            resident_bytes,
        )?;
        writer.gauge("process_virtual_memory", "The shim's address space", bytes, virtual_bytes)?;
        writer.gauge("process_open_fds", "Open file descriptors of the shim", None, open_fds)?;
        writer.gauge("process_max_fds", "Limit of open file descriptors", None, max_fds)
    }
}

fn workers(writer: &mut Writer<'_, '_>, pools: &[PoolState]) -> Result {
    let states = WorkerState::ALL.into_iter().enumerate().map(|(index, state)| {
        (state.as_str(), pools.iter().map(|pool| pool.workers[index] as u64).sum())
    });
    writer.gauges("sidecar_shim_workers", "Workers by what they do", "state", states)?;
    let healths = PoolHealth::ALL.into_iter().map(|health| {
        let count = pools.iter().filter(|pool| pool.health == health).count();
        (health.as_str(), count as u64)
    });
    let help = "Pools by whether their workers come up; calls of those that are down fail at once";
    writer.gauges("sidecar_shim_pools", help, "state", healths)?;
    let help = "Workers that were started";
    let metric = writer.family("sidecar_shim_worker_starts", help, None, MetricType::Counter)?;
    ConstCounter::new(pools.iter().map(|pool| pool.starts).sum::<u64>()).encode(metric)?;
    let mut exits = pools.iter().map(|pool| pool.exits.by_reason());
    let mut sum = exits.next().unwrap_or_default();
    for more in exits {
        sum.iter_mut().zip(more).for_each(|((_, count), (_, more))| *count += more);
    }
    let help = "Workers that have exited, by reason";
    writer.counters("sidecar_shim_worker_exits", help, "reason", sum.into_iter())
}

/// Writes families of metrics.
struct Writer<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Writer<'_, '_> {
    /// Begins a family. Its unit, and `total` of a counter, are added to its name.
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        unit: Option<&'s Unit>,
        kind: MetricType,
    ) -> std::result::Result<MetricEncoder<'s>, Error> {
        self.0.encode_descriptor(name, help, unit, kind)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> Result {
        ConstGauge::new(value).encode(self.family(name, help, unit, MetricType::Gauge)?)
    }

    fn gauges<'s>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'s str, u64)>,
    ) -> Result {
        let values = values.map(|(value, count)| (value, ConstGauge::new(count)));
        self.labelled(name, help, MetricType::Gauge, label, values)
    }

    fn counters<'s>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'s str, u64)>,
    ) -> Result {
        let values = values.map(|(value, count)| (value, ConstCounter::new(count)));
        self.labelled(name, help, MetricType::Counter, label, values)
    }

    /// A family with one metric for each value of its label.
    fn labelled<'s>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        label: &str,
        metrics: impl Iterator<Item = (&'s str, impl EncodeMetric)>,
    ) -> Result {
        let mut family = self.family(name, help, None, kind)?;
        for (value, metric) in metrics {
            metric.encode(family.encode_family(&[(label, value)])?)?;
        }
        Ok(())
    }

    fn times(
        &mut self,
        name: &str,
        help: &str,
        hooks: &[HookStats],
        of: impl Fn(&HookStats) -> &Histogram,
    ) -> Result {
        let mut metric = self.family(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for hook in hooks {
            let (histogram, mut below) = (of(hook), 0);
            let mut buckets: Vec<_> = BOUNDS
                .into_iter()
                .map(|bound| {
                    let up_to = histogram.count_up_to(Duration::from_secs_f64(bound));
                    (bound, up_to - std::mem::replace(&mut below, up_to))
                })
                .collect();
            buckets.push((f64::INFINITY, histogram.count() - below));
            let labels = [("hook", &*hook.name)];
            let mut metric = metric.encode_family(&labels)?;
            let (sum, count) = (histogram.sum().as_secs_f64(), histogram.count());
            metric.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_is_one_of_the_histograms() {
        assert!(BOUNDS.is_sorted());
        for bound in BOUNDS {
            assert!(Histogram::has_bound(Duration::from_secs_f64(bound)), "{bound}");
        }
    }
}
