"""Checks examples/monitoring: `.ci/monitoring` says what this needs.

The rules and the dashboard are judged by Prometheus itself and by Grafana's types, the manifests by the operator's
definitions; rules and dashboard are then used on what shims
under load with failing hooks report. With `--record`, it also draws docs/dashboard.svg.
"""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

import cases
import draw
import grafana
import live
import manifests
import queries
import rules
from common import fail, say

LIMIT = 80  # seconds until the load has shown everything
RECORDING = 120  # seconds of a load that is drawn


def unseen(prometheus):
    """The alerts whose condition no shim meets yet, and the queries without data."""
    seen = {each["metric"]["alertname"] for each in prometheus.query("ALERTS")}
    return [f"alert {name}" for name in rules.alerts() if name not in seen] + queries.empty(prometheus)


def check_series(prometheus):
    """The series of the unit tests are those that a scrape has: names, and labels with the values of ours."""
    for series in sorted({series for case in cases.CASES for series in case.series}):
        name, _, labels = series.partition("{")
        if "code=" in labels:  # not each status occurs here
            labels = re.sub(r'code="[A-Z_]+"', 'code!=""', labels)
        common = ",".join(f'{label}!=""' for label in (*cases.POD, "endpoint"))
        if not prometheus.query(f"{name}{{{common}{',' + labels if labels else '}'}"):
            fail(f"a unit test of the rules has the series {series}, and no shim does")


def check_health(prometheus):
    for group in prometheus.api("rules")["groups"]:
        for rule in group["rules"]:
            if rule["health"] != "ok":
                fail(f"Prometheus cannot evaluate {rule['name']}: {rule.get('lastError')}")


def check_live(program, directory, file, record):
    with live.Cluster(directory) as cluster, live.Prometheus(
        program, directory, file, [node.target() for node in cluster.nodes]
    ) as prometheus:
        start = time.monotonic()
        while missing := unseen(prometheus):
            if time.monotonic() > start + LIMIT:
                fail(f"under load, Prometheus does not see: {', '.join(missing)}")
            cluster.end.wait(1)
        check_series(prometheus)
        check_health(prometheus)
        count = sum(len(panel["targets"]) for panel in grafana.panels())
        say(f"from a real scrape: each alert's condition is met, and all {count} queries of the dashboard have data")
        if record:
            cluster.end.wait(max(0, start + RECORDING - time.monotonic()))
            draw.draw(prometheus, RECORDING)
            say(f"drew {draw.PICTURE.name}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True, help="directory with prometheus and promtool")
    parser.add_argument("--node-modules", type=Path, help="directory with tsc, and with the types of package.json")
    parser.add_argument("--record", action="store_true")
    options = parser.parse_args()
    grafana.check_form()
    with tempfile.TemporaryDirectory(prefix="shim-") as temporary:
        directory = Path(temporary)
        file = rules.check(options.bin / "promtool", directory)
        if options.node_modules:
            modules = options.node_modules.resolve()
            grafana.check_schema(modules, directory)
            manifests.check(modules, directory)
        check_live(options.bin / "prometheus", directory, file, options.record)
    draw.check()


if __name__ == "__main__":
    sys.exit(main())
