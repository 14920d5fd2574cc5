"""The alerts: their form, their page, and promtool's tests of when they fire."""

import json
import re
import subprocess

import yaml

from cases import CASES, ENDPOINT, POD, TEXTS
from common import EXAMPLES, ROOT, fail, say

RUNBOOK = ROOT / "docs/runbook.md"
# Each section of the page says these things, in this order.
PARTS = ["**What users feel.**", "**What to look at.**", "**What to do.**"]
# What an alert must not know: metrics have no label for it, and a text must not promise it.
NAMES_OF_VMS = re.compile(r"labels\.(vmi?|name|uid|domain)\b")


def groups():
    """The groups of the PrometheusRule, which Prometheus itself reads in the same form."""
    (document,) = yaml.safe_load_all((EXAMPLES / "prometheusrule.yaml").read_text(encoding="utf-8"))
    return {"groups": document["spec"]["groups"]}


def alerts():
    """All alerts by their names."""
    return {rule["alert"]: rule for group in groups()["groups"] for rule in group["rules"]}


def check_forms():
    """Checks what Prometheus does not ask for, and what people need who get an alert."""
    for name, rule in alerts().items():
        if rule["labels"] not in ({"severity": "critical"}, {"severity": "warning"}):
            fail(f"{name} has the labels {rule['labels']}")
        if not re.fullmatch("[1-9][0-9]*m", rule.get("for", "")):
            fail(f"{name} has no `for` in minutes")
        annotations = rule["annotations"]
        if list(annotations) != ["summary", "description", "runbook_url"]:
            fail(f"{name} has the annotations {list(annotations)}")
        for wanted in ("pod", "hook" if "hook" in rule["expr"] else "job"):
            if f"$labels.{wanted} " not in annotations["summary"]:
                fail(f"the summary of {name} does not name the {wanted}")
        if NAMES_OF_VMS.search(json.dumps(annotations)):
            fail(f"{name} names a VM")


def check_runbook():
    """Each alert leads to its section of the page, and each section to an alert."""
    sections = dict(re.findall(r"^## (Sidecar\w+)\n(.*?)(?=^## |\Z)", RUNBOOK.read_text(encoding="utf-8"), re.M | re.S))
    if list(sections) != list(alerts()):
        fail(f"docs/runbook.md has sections for {list(sections)}, and there are the alerts {list(alerts())}")
    for name, text in sections.items():
        # The anchor that GitHub and its kin derive from a heading.
        if not alerts()[name]["annotations"]["runbook_url"].endswith(f"/runbook.md#{name.lower()}"):
            fail(f"{name} does not lead to its section")
        places = [text.find(part) for part in PARTS]
        if -1 in places or places != sorted(places):
            fail(f"the section of {name} does not say {PARTS}, in this order")
        if alerts()[name]["labels"]["severity"] not in text.splitlines()[1]:
            fail(f"the section of {name} begins without its severity")


def test_of(case):
    """A case as promtool reads it."""
    labels = {**POD, **ENDPOINT}

    def series(name):
        name, _, own = name.partition("{")
        common = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return f"{name}{{{common}{',' + own if own else '}'}"

    expected = []
    if case.fires:
        summary, description = TEXTS[case.alert]
        rule = alerts()[case.alert]
        expected = [{
            "exp_labels": {**(labels if case.every_label else POD), **case.labels, **rule["labels"]},
            "exp_annotations": {
                "summary": summary,
                "description": description.replace("VALUE", case.value),
                "runbook_url": rule["annotations"]["runbook_url"],
            },
        }]
    return {
        "interval": "1m",
        "input_series": [{"series": series(name), "values": values} for name, values in case.series.items()],
        "alert_rule_test": [{
            "eval_time": f"{int(case.minute * 60)}s", "alertname": case.alert, "exp_alerts": expected,
        }],
    }


def promtool(program, *arguments):
    done = subprocess.run([program, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
    return done.returncode == 0, done.stdout


def check(program, directory):
    """Runs promtool on the rules. Returns the file with them."""
    check_forms()
    check_runbook()
    rules, tests = directory / "rules.yaml", directory / "tests.yaml"
    rules.write_text(yaml.safe_dump(groups()), encoding="utf-8")
    good, text = promtool(program, "check", "rules", "--lint=all", "--lint-fatal", rules)
    if not good:
        fail(f"promtool check rules:\n{text}")

    def verdict(cases):
        content = {"rule_files": [rules.name], "evaluation_interval": "30s", "tests": [test_of(case) for case in cases]}
        tests.write_text(yaml.safe_dump(content), encoding="utf-8")
        return promtool(program, "test", "rules", tests)

    good, text = verdict(CASES)
    if not good:
        fail(f"promtool test rules:\n{text}")
    for name in alerts():
        kinds = {case.fires for case in CASES if case.alert == name}
        if kinds != {True, False}:
            fail(f"the alert {name} needs a case in which it fires, and one in which it does not")
    # promtool must notice an alert that is silent, and one that is not.
    for name in alerts():
        case = next(case for case in CASES if case.alert == name and case.fires)
        quiet = {series: "0x60" if "budget" not in series else "1x60" for series in case.series}
        quiet |= {"up": "1x60"} if "up" in case.series else {}
        wrong = type(case)(**{**vars(case), "series": quiet})
        if verdict([wrong])[0]:
            fail(f"{name} fires without a reason, or promtool does not notice that it is silent")
    say(f"{len(alerts())} alerts fire, and are silent, in {len(CASES)} unit tests")
    return rules
