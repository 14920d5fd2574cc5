"""Lets cloud-init read what the SDKs' helpers write: each `expect` of sdk/vectors/cloud-init.json.

Argument: the directory of the Python package `cloudinit`. The configuration and the scripts that
cloud-init makes of the user data must be those of the vector, and it may warn of nothing. Nothing
is installed or configured: cloud-init works in a temporary directory. It runs the boot hooks and
part handlers of the vectors, which do nothing.
"""

import json
import logging
import multiprocessing
import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, sys.argv[1])

import yaml  # noqa: E402
from cloudinit import stages, version  # noqa: E402
from cloudinit.settings import PER_INSTANCE  # noqa: E402
from cloudinit.sources.DataSourceNoCloud import DataSourceNoCloud  # noqa: E402

# What cloud-init finds there at this point of a boot.
DIRECTORIES = ("handlers", "sem", "data", "seed/nocloud", "instances/vm1/handlers", "instances/vm1/scripts")
META_DATA = {"instance-id": "vm1", "local-hostname": "vm1"}


class Warnings(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


def consume(user_data: str) -> tuple[object, dict[str, str], list[str]]:
    """Returns the configuration, the scripts by their names, and the warnings."""
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    with tempfile.TemporaryDirectory() as name:
        cloud, run = pathlib.Path(name, "cloud"), pathlib.Path(name, "run")
        for directory in DIRECTORIES:
            (cloud / directory).mkdir(parents=True)
        run.mkdir()
        (cloud / "instance").symlink_to("instances/vm1")
        # The files as KubeVirt writes them for cloudInitNoCloud.
        (cloud / "seed/nocloud/meta-data").write_text(json.dumps(META_DATA))
        (cloud / "seed/nocloud/user-data").write_bytes(user_data.encode())
        init = stages.Init()
        init._cfg = {
            "system_info": {"distro": "debian", "paths": {"cloud_dir": str(cloud), "run_dir": str(run)}},
            "datasource": {"NoCloud": {"fs_label": None}},  # looks at no disk
        }
        source = DataSourceNoCloud(init.cfg, init.distro, init.paths)
        if not source.get_data():
            raise RuntimeError("cloud-init finds no user data")
        init.datasource = init.paths.datasource = source
        init._consume_userdata(PER_INSTANCE)
        files = [file for kind in ("scripts", "boothooks") for file in (cloud / "instance" / kind).glob("*")]
        scripts = {file.name: file.read_bytes().decode() for file in files}
        config = yaml.safe_load((cloud / "instance/cloud-config.txt").read_bytes())
    return config, scripts, warnings.messages


def text(value: object) -> str:
    return "\n".join(value) if isinstance(value, list) else value


def judge(case: dict) -> str:
    found = consume(text(case["expect"]))
    wanted = (case.get("config"), case.get("scripts", {}), [])
    return "" if found == wanted else f"{case['about']}:\n  wanted {wanted}\n  found  {found}"


def main() -> None:
    cases = json.loads((ROOT / "sdk/vectors/cloud-init.json").read_text())["cases"]
    cases = [case for case in cases if "expect" in case]
    # A process for each: cloud-init imports part handlers, always by the same name.
    with multiprocessing.get_context("fork").Pool(maxtasksperchild=1) as pool:
        # This judge must notice what is wrong.
        config, _, warnings = pool.apply(consume, ("#cloud-config\na: [\n",))
        if config or not warnings:
            sys.exit(f"cloud-init took broken YAML without a warning: {config}")
        faults = [fault for fault in pool.imap(judge, cases, chunksize=1) if fault]
    if faults or not cases:
        sys.exit("\n".join([*faults, f"{len(faults)} of {len(cases)} cases failed"]))
    print(f"cloud-init {version.version_string()} reads {len(cases)} cases as documented")


if __name__ == "__main__":
    main()
