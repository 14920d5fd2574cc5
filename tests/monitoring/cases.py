"""When each alert fires, what it says then, and when it must be silent: the table of rules.py."""

from dataclasses import dataclass, field

# The labels that the PodMonitor gives to each series, and which of them an alert keeps.
POD = {"job": "memlock-hook", "namespace": "memlock-hook", "pod": "memlock-hook-x7k2p", "node": "node-a"}
ENDPOINT = {"endpoint": "shim-metrics", "instance": "10.0.0.7:9105", "container": "shim"}
IN_POD = "in pod memlock-hook/memlock-hook-x7k2p"

# Summary and description, by the alert. VALUE is the one of the case.
TEXTS = {
    "SidecarShimDown": (
        f"The shim of memlock-hook does not run {IN_POD}",
        "Prometheus has not reached it for 5 minutes. VMs that need the hook do not start on node node-a.",
    ),
    "SidecarShimPoolDown": (
        f"No worker of memlock-hook starts {IN_POD}",
        "Calls of its hooks fail at once. VMs that need them do not start on node node-a.",
    ),
    "SidecarShimRestarts": (
        f"The shim of memlock-hook keeps restarting {IN_POD}",
        "VALUE restarts in 30 minutes on node node-a. Each of them fails the calls that run.",
    ),
    "SidecarShimWorkersFail": (
        f"Workers of memlock-hook keep failing {IN_POD}",
        "VALUE workers were lost in 15 minutes on node node-a, and calls wait for others to start.",
    ),
    "SidecarShimCallsFail": (
        f"Calls of hook preVMStart fail {IN_POD}",
        "VALUE of the calls in 15 minutes, of VMs on node node-a.",
    ),
    "SidecarShimCallsSlow": (
        f"Calls of hook preVMStart are slow {IN_POD}",
        "The slowest hundredth of the calls takes VALUE or more. VMs on node node-a start late, and fail at the "
        "Plugin's timeout.",
    ),
    "SidecarShimQueueFills": (
        f"Calls of memlock-hook wait for a worker {IN_POD}",
        "VALUE calls wait; in 5 minutes, the queue was never seen empty. VMs on node node-a start late.",
    ),
    "SidecarShimRefusesCalls": (
        f"The shim of memlock-hook refuses calls {IN_POD}: queue",
        "VALUE calls in 10 minutes exceeded a limit. KubeVirt repeats them, and the VMs on node node-a start late or "
        "not at all.",
    ),
    "SidecarShimMemoryBudgetUsed": (
        f"The shim of memlock-hook has used up its memory budget {IN_POD}",
        "VALUE of the budget is held. Calls with large documents wait for memory on node node-a, and are refused at "
        "their deadline.",
    ),
}


@dataclass
class Case:
    """What one alert sees of a pod, with a value for each minute from 0, and whether it fires at a minute."""

    alert: str
    series: dict
    minute: float
    fires: bool = True
    value: str = ""
    labels: dict = field(default_factory=dict)
    every_label: bool = False  # the alert keeps the labels of its series


def silent(alert, series, minute):
    return Case(alert, series, minute, fires=False)


def calls(code, values):
    """Calls of one hook: those with a status, and others that succeed."""
    series = 'sidecar_shim_calls_total{hook="preVMStart",code="%s"}'
    return {series % "OK": "100+10x60", series % code: values}


def slow(seconds):
    """Three calls each minute, of which one takes longer than 5 s and up to `seconds`."""
    bucket = 'sidecar_shim_call_duration_seconds_bucket{hook="preVMStart",le="%s"}'
    bounds = {"5.0": 5, "10.0": 10, "30.0": 30, "+Inf": 60}
    return {bucket % name: "0+3x60" if bound >= seconds else "0+2x60" for name, bound in bounds.items()}


def exits(reason, values):
    return {f'sidecar_shim_worker_exits_total{{reason="{reason}"}}': values}


def pools(down, serving="0x60"):
    return {'sidecar_shim_pools{state="serving"}': serving, 'sidecar_shim_pools{state="down"}': down}


def refusals(why, values):
    return {f'sidecar_shim_refusals_total{{why="{why}"}}': values}


def memory(used):
    return {"sidecar_shim_memory_used_bytes": used, "sidecar_shim_memory_budget_bytes": "1000x60"}


def started(values):
    return {"process_start_time_seconds": values}


def waiting(values):
    return {"sidecar_shim_calls_waiting": values}


HOOK, QUEUE = {"hook": "preVMStart"}, {"why": "queue"}
CASES = [
    Case("SidecarShimDown", {"up": "1x3 0x20"}, 9.5, every_label=True),
    silent("SidecarShimDown", {"up": "1x3 0x4 1x20"}, 9.5),  # a rolling update
    Case("SidecarShimPoolDown", pools("0x3 1x20"), 7),
    Case("SidecarShimPoolDown", pools("0x3 2x20", "3x60"), 7),  # others serve
    silent("SidecarShimPoolDown", pools("0x3 1 0x20"), 7),
    Case("SidecarShimRestarts", started("100x5 200x5 300x5 400x40"), 20, value="3", every_label=True),
    silent("SidecarShimRestarts", started("100x5 200x5 300x50"), 20),
    silent("SidecarShimRestarts", started("100x5 200x5 300x5 400x40"), 42),
    Case("SidecarShimWorkersFail", pools("0x60") | exits("call", "0+1x60"), 30, value="15"),
    Case("SidecarShimWorkersFail", pools("0x60") | exits("failed_idle", "0+0.2x60") | exits("failed_start", "0+0.2x60"), 30, value="6"),
    silent("SidecarShimWorkersFail", pools("0x60") | exits("stopped", "0+9x60") | exits("idle", "0+9x60"), 30),
    silent("SidecarShimWorkersFail", pools("0x60") | exits("call", "0+0.2x60"), 30),
    # A pool that is down is one problem, and so it is one alert.
    silent("SidecarShimWorkersFail", pools("1x60") | exits("failed_start", "0+4x60"), 30),
    Case("SidecarShimPoolDown", pools("1x60") | exits("failed_start", "0+4x60"), 30),
    Case("SidecarShimCallsFail", calls("INTERNAL", "0+1x60"), 30, value="9.091%", labels=HOOK),
    Case("SidecarShimCallsFail", calls("DEADLINE_EXCEEDED", "0+2x60"), 30, value="16.67%", labels=HOOK),
    Case("SidecarShimCallsFail", calls("UNIMPLEMENTED", "_x20 1+1x40"), 45, value="9.091%", labels=HOOK),
    silent("SidecarShimCallsFail", calls("INTERNAL", "0+0.4x60"), 30),  # of many calls, a few
    silent("SidecarShimCallsFail", {'sidecar_shim_calls_total{hook="preVMStart",code="INTERNAL"}': "1x20 2x10 3x20"}, 35),
    silent("SidecarShimCallsFail", calls("FAILED_PRECONDITION", "0+9x60"), 30),
    silent("SidecarShimCallsFail", calls("INTERNAL", "0+0.4x60") | calls("FAILED_PRECONDITION", "0+9x60"), 30),
    silent("SidecarShimCallsFail", calls("CANCELLED", "0+9x60"), 30),
    Case("SidecarShimCallsSlow", slow(30), 30, value="29.4s", labels=HOOK),
    silent("SidecarShimCallsSlow", slow(10), 30),
    Case("SidecarShimQueueFills", waiting("0x10 3x20"), 17, value="3"),
    silent("SidecarShimQueueFills", waiting("0x10 3x4 0 3x30"), 19),
    Case("SidecarShimRefusesCalls", refusals("queue", "0x10 4x30"), 15, value="4", labels=QUEUE),
    silent("SidecarShimRefusesCalls", refusals("queue", "0x10 4x30"), 25),
    # Other alerts are about these.
    silent("SidecarShimRefusesCalls", refusals("unavailable", "0+4x30") | refusals("not_served", "0+4x30"), 15),
    Case("SidecarShimMemoryBudgetUsed", memory("100x10 950x30"), 17, value="95%", every_label=True),
    silent("SidecarShimMemoryBudgetUsed", memory("100x10 950x30"), 14),
    silent("SidecarShimMemoryBudgetUsed", memory("100x10 890x30"), 17),
    silent("SidecarShimMemoryBudgetUsed", memory("100x10 950x3 100x30"), 17),
]
