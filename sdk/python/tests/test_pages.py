"""Runs the code of README.md, and what the examples promise."""

import importlib
import json
import re
import sys
import tempfile
import unittest
from pathlib import Path

from support import ROOT, SDK, Running

sys.path.insert(0, str(SDK))

from kubevirt_hook import VMI, Refused, Worker
from kubevirt_testing import assert_idempotent, call
from kubevirt_xml import parse

UNCHANGED = {"unchanged": True}
MODULES = ("kubevirt_hook", "kubevirt_cloud_init", "kubevirt_testing", "kubevirt_xml")


def blocks():
    """Returns the Python code of the page, by the heading above it."""
    page = (SDK / "README.md").read_text(encoding="utf-8")
    found = {}
    for section in re.split(r"^## ", page, flags=re.MULTILINE):
        heading = section.partition("\n")[0]
        for code in re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            assert heading not in found, f"two blocks of {heading}"
            found[heading] = code
    return found


class Readme(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.blocks = blocks()
        self.program = Path(directory.name, "my_hook.py")
        self.program.write_text(self.blocks.pop("# kubevirt-hook for Python"), encoding="utf-8")
        sys.path.insert(0, directory.name)
        self.addCleanup(sys.path.remove, directory.name)
        self.addCleanup(sys.modules.pop, "my_hook", None)

    def run_block(self, heading, **scope):
        exec(compile(self.blocks[heading], heading, "exec"), scope)
        return scope

    def test_the_program(self):
        domain = "<domain><name>vm</name></domain>"
        with Running(self.program) as worker:
            vmi = {"metadata": {"annotations": {"example.com/title": "R&D"}}}
            once = worker.call(vmi, domain)["domain"]
            self.assertEqual(once, domain.replace("</name>", "</name><title>R&amp;D</title>"))
            self.assertEqual(worker.call(vmi, once), UNCHANGED)
            self.assertEqual(worker.call({"metadata": {}}, domain), UNCHANGED)
            vmi["metadata"]["annotations"]["example.com/title"] = "\a"
            self.assertEqual(worker.call(vmi, domain)["code"], -32000)

    def test_every_other_block(self):
        checked = {
            "The VMI": self.check_vmi,
            "The document": self.check_document,
            "Logging": self.check_logging,
            "How do I test it?": self.check_testing,
            "Why not ElementTree?": self.check_element_tree,
            "How do I add to cloud-init user data?": self.check_cloud_init,
            "Is there a typed VMI?": self.check_typed,
            "How do I use asyncio?": self.check_asyncio,
        }
        self.assertEqual(self.blocks.keys(), checked.keys())
        for heading, check in checked.items():
            with self.subTest(heading):
                check(heading)

    def check_vmi(self, heading):
        hook = Worker("h")
        self.run_block(heading, hook=hook)
        self.assertIsNone(hook.invoke("onDefineDomain", {"metadata": {"name": "a"}}, "x"))

    def check_document(self, heading):
        doc = parse("<domain><devices><disk device='cdrom'/></devices></domain>")
        self.run_block(heading)["edit"](doc)
        self.assertEqual(doc.find("sysinfo/baseBoard/entry").text, "4711")
        self.assertEqual(doc.find("qemu:commandline/qemu:arg").get("value"), "-snapshot")
        self.assertIsNone(doc.find("devices/disk"))

    def check_logging(self, heading):
        with call() as log:
            self.run_block(heading, hook=Worker("h"))["log"]()
        self.assertEqual(log, ["WARNING: no such disk disk=vdc disks=2"])

    def check_testing(self, heading):
        scope = self.run_block(heading)
        tests = [it for name, it in scope.items() if name.startswith("test_")]
        self.assertEqual(len(tests), 2)
        for test in tests:
            test()
        doc = parse("<domain/>")
        scope["set_title"](VMI(scope["VMI"]), doc)
        self.assertEqual(str(doc), "<domain><title>A &amp; B</title></domain>")

    def check_element_tree(self, heading):
        hook = self.run_block(heading)["tree"]
        once = hook.invoke("onDefineDomain", {"metadata": {"name": "a"}}, "<domain/>")
        self.assertEqual(once, "<domain><title>a</title></domain>")

    def check_cloud_init(self, heading):
        hook = Worker("h")
        self.run_block(heading, hook=hook)
        data = assert_idempotent(hook, {}, {"UserData": "#!/bin/sh\n"})
        self.assertIn("\npackages: [qemu-guest-agent]\n", data["UserData"])

    def check_typed(self, heading):
        page_size = self.run_block(heading)["page_size"]
        vmi = VMI({"spec": {"domain": {"memory": {"hugepages": {"pageSize": "2Mi"}}}}})
        self.assertEqual((page_size(vmi), page_size(VMI())), ("2Mi", None))

    def check_asyncio(self, heading):
        doc = parse("<domain/>")
        self.run_block(heading)["set_title_slowly"](VMI({"metadata": {"name": "a"}}), doc)
        self.assertEqual(doc.find("title").text, "title of a")

    def test_every_public_name_is_on_the_page(self):
        page = (SDK / "README.md").read_text(encoding="utf-8")
        for module in MODULES:
            for name in importlib.import_module(module).__all__:
                if name != "Element":
                    self.assertRegex(page, rf"\b{name}\b")


class Versions(unittest.TestCase):
    def test_all_files_have_one_version(self):
        version = importlib.import_module("kubevirt_hook").__version__
        for name in MODULES:
            module = importlib.import_module(name)
            self.assertEqual(module.__version__, version)
            first = Path(module.__file__).read_text(encoding="utf-8").partition("\n")[0]
            self.assertTrue(
                first.startswith(f"# {name} of kubevirt-hook {version} for Python."), first
            )


class VhostUser(unittest.TestCase):
    """The example for which all languages share the documents."""

    CASES = ROOT / "examples/cases/vhost-user"

    def setUp(self):
        sys.path.insert(0, str(ROOT / "examples/python"))
        self.addCleanup(sys.path.remove, str(ROOT / "examples/python"))
        self.hook = importlib.import_module("vhost_user").hook
        self.vmi = VMI(json.loads((self.CASES / "vmi.json").read_text()))
        self.domain = (self.CASES / "domain.xml").read_text()

    def invoke(self):
        with call() as self.log:
            return self.hook.invoke("onDefineDomain", self.vmi, self.domain)

    def test_the_disk_is_added_once(self):
        with call() as log:
            once = assert_idempotent(self.hook, self.vmi, self.domain)
        self.assertEqual(once, (self.CASES / "expected.xml").read_text())
        self.assertEqual(set(log), {"WARNING: a VM with a vhost-user disk cannot be live-migrated"})

    def test_without_the_label_nothing_changes(self):
        del self.vmi["metadata"]["labels"]["vhost-user.example/disk"]
        self.assertIsNone(self.invoke())

    def test_it_needs_hugepages(self):
        del self.vmi["spec"]["domain"]["memory"]["hugepages"]
        with self.assertRaisesRegex(
            Refused,
            "^label vhost-user.example/disk: a vhost-user disk needs spec.domain.memory.hugepages$",
        ):
            self.invoke()

    def test_a_vm_that_stays_is_not_warned_about(self):
        self.vmi["spec"]["evictionStrategy"] = "None"
        self.assertIsNotNone(self.invoke())
        self.assertEqual(self.log, [])

    def test_all_names_are_taken(self):
        targets = "".join(
            f"<disk><target dev='vd{it}'/></disk>" for it in "abcdefghijklmnopqrstuvwxyz"
        )
        self.domain = f"<domain><devices>{targets}</devices></domain>"
        with self.assertRaisesRegex(Refused, "no name from vda to vdz is free"):
            self.invoke()


if __name__ == "__main__":
    unittest.main()
