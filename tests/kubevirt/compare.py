"""Compares what this project says and does with what KubeVirt's code makes of it. `.ci/kubevirt` runs it, with a
private /run. Each function `judge_…` is one judgement."""

import sys
import tempfile

from judge import ROOT, Judge, Refused, fail

sys.path.insert(0, str(ROOT / "tests/manifests"))

from accepts import judge_conditions, judge_fields, judge_generated, judge_manifests  # noqa: E402
from binding import judge_binding  # noqa: E402
from boots import judge_cloud_init, judge_examples, judge_node_hooks, judge_sample, judge_sizes  # noqa: E402
from model import judge_model  # noqa: E402


def main():
    with tempfile.TemporaryFile() as log:
        judge = Judge(log)
        if sys.argv[1:] == ["--record"]:
            judge_model(judge, log, record=True)
            return
        judge_manifests(judge)
        judge_generated(judge)
        judge_conditions(judge)
        judge_fields(judge)
        judge_sample(judge)
        judge_binding(judge)
        judge_examples(judge, log)
        judge_sizes(judge, log)
        judge_cloud_init(judge, log)
        judge_node_hooks(judge, log)
        judge_model(judge, log, record=False)


if __name__ == "__main__":
    try:
        main()
    except Refused as error:
        fail(f"KubeVirt's code refuses: {error}")
