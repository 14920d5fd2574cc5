"""What hooks are tested with, and small pieces of the interface."""

import asyncio
import logging
import sys
import unittest

from support import ROOT, SDK

sys.path.insert(0, str(SDK))

from kubevirt_hook import VMI, Cancelled, HookError, InvalidParams, Refused, Worker
from kubevirt_testing import assert_idempotent, call, rewritten
from kubevirt_xml import parse

RECORDED = ROOT / "crates/hookctl/src/rewrite/recorded"


class Rewriting(unittest.TestCase):
    """The model beside what KubeVirt printed."""

    def test_a_domain_is_rewritten_as_kubevirt_does(self):
        for name in ("vm", "command-lines", "metadata", "foreign"):
            sent = (RECORDED / f"{name}.sent.xml").read_text(encoding="utf-8")
            for receiver in ("plugin", "sidecar"):
                with self.subTest(name, receiver=receiver):
                    theirs = (RECORDED / f"{name}.same-{receiver}.xml").read_text(encoding="utf-8")
                    ours = rewritten(sent, receiver)
                    self.assertEqual(content(parse(ours).root), content(parse(theirs).root))
                    self.assertEqual(
                        content(parse(rewritten(ours, receiver)).root), content(parse(ours).root)
                    )

    def test_the_sample_is_a_domain_as_kubevirt_writes_it(self):
        sample = (ROOT / "crates/hookctl/src/samples/domain.xml").read_text().rstrip()
        undeclared = sample.replace(' xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0"', "")
        self.assertEqual(rewritten(sample, "sidecar"), undeclared)


def content(element):
    """Returns the content of an element, without what is not modelled."""
    children = sorted(filter(None, map(content, element.find_all("*"))))
    attributes = sorted((it, " ".join(value.split())) for it, value in element.attributes.items())
    text = "" if children else element.text.strip()
    if not (children or attributes or text):
        return ""
    return f"<{element.namespace}|{element.name}{attributes}>{text}{''.join(children)}</>"


class Idempotence(unittest.TestCase):
    def worker(self, function):
        worker = Worker("h")
        worker.edit_domain(function)
        return worker

    def test_a_hook_that_is(self):
        worker = self.worker(
            lambda vmi, doc: (
                doc.ensure("qemu:commandline").ensure("qemu:arg[@value=?]", vmi.name) and None
            )
        )
        once = assert_idempotent(worker, {"metadata": {"name": "-a"}}, "<domain>\n</domain>")
        self.assertIn('<qemu:arg value="-a"></qemu:arg>', once)

    def test_hooks_that_are_not(self):
        def by_prefix(vmi, domain):
            return domain if "<qemu:commandline" in domain else domain.replace(
                "</domain>", "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>"
                "<qemu:arg value='a'/></qemu:commandline></domain>")  # fmt: skip

        for function, says in (
            (lambda vmi, doc: doc.append("title").set("a", "1"), "changes its own result:"),
            (by_prefix, "hands it back to a plugin"),
            (
                lambda vmi, domain: domain if "<!--seen-->" in domain else domain + "<!--seen-->",
                "to a sidecar",
            ),
        ):
            hook = self.worker(function) if "append" in function.__code__.co_names else function
            with self.subTest(says), self.assertRaisesRegex(AssertionError, says):
                assert_idempotent(hook, {}, "<domain></domain>")

    def test_cloud_init_data(self):
        worker = Worker("h")
        worker.pre_cloud_init_iso(lambda vmi, data: {**data, "UserData": data["UserData"] + "#"})
        with self.assertRaises(AssertionError):
            assert_idempotent(worker, {}, {"UserData": ""})


class Calls(unittest.TestCase):
    def test_a_hook_finds_its_call(self):
        hook = Worker("h")
        with self.assertRaisesRegex(LookupError, "tests use kubevirt_testing.call"):
            _ = hook.call
        with call(context="MigrationTarget", attempt=2, remaining=30, cancelled=True):
            self.assertEqual(
                (hook.call.hook, hook.call.context, hook.call.attempt),
                ("onDefineDomain", "MigrationTarget", 2),
            )
            self.assertTrue(29 < hook.call.remaining() <= 30)
            self.assertRaises(Cancelled, hook.call.raise_if_cancelled)
        with call():
            self.assertEqual(
                (hook.call.context, hook.call.attempt, hook.call.remaining()), (None, 1, None)
            )
            hook.call.raise_if_cancelled()

    def test_what_is_logged_is_captured(self):
        hook = Worker("h")
        root = logging.getLogger()
        before = root.level, root.handlers[:]
        with call() as log:
            hook.log.debug("d")
            logging.getLogger("x").warning("no %s", "disk", extra={"disks": 2, "name of it": "a b"})
        self.assertEqual(log, ['WARNING: no disk disks=2 name of it="a b"'])
        with call(level="debug") as log:
            hook.log.debug("d")
        self.assertEqual(log, ["DEBUG: d"])
        self.assertEqual((root.level, root.handlers), before)


class Results(unittest.TestCase):
    def test_a_domain_hook_returns_what_it_has(self):
        for result, text in (
            ("<b/>", "<b/>"),
            (b"<b/>", "<b/>"),
            (parse("<b/>"), "<b/>"),
            (None, None),
            ("<a/>", None),
        ):
            hook = Worker("h")
            hook.on_define_domain(lambda vmi, domain, result=result: result)
            self.assertEqual(hook.invoke("onDefineDomain", {}, "<a/>"), text)

    def test_edits(self):
        hook = Worker("h")

        @hook.edit_domain
        def edit(vmi, doc):
            if vmi.name:
                doc.ensure("title").text = vmi.name

        self.assertIsNone(hook.invoke("onDefineDomain", {}, "<a/>"))
        vmi = {"metadata": {"name": "vm1"}}
        self.assertEqual(hook.invoke("onDefineDomain", vmi, "<a/>"), "<a><title>vm1</title></a>")
        with self.assertRaisesRegex(InvalidParams, "^domain: line 1, column 9: mismatched tag$"):
            hook.invoke("onDefineDomain", vmi, "<a><b></a>")
        wrong = Worker("h")
        wrong.edit_domain(lambda vmi, doc: str(doc))
        with self.assertRaisesRegex(TypeError, "an edit_domain hook must return None, not a str"):
            wrong.invoke("onDefineDomain", {}, "<a/>")


class Vmis(unittest.TestCase):
    VMI = VMI({"metadata": {"name": "vm1", "namespace": "ns", "labels": {"a.b/c": "d", "n": None}, "annotations": None},
               "spec": {"domain": {"memory": {"guest": "1Gi"}, "disks": [{"name": "root"}], "none": None}}})  # fmt: skip

    def test_shorthands(self):
        vmi = self.VMI
        self.assertEqual((vmi.name, vmi.namespace, vmi.label("a.b/c")), ("vm1", "ns", "d"))
        self.assertEqual((vmi.label("n"), vmi.label("x"), vmi.annotation("x")), (None, None, None))
        for empty in ({}, {"metadata": None}, {"metadata": {"labels": []}}):
            self.assertEqual(
                (VMI(empty).name, VMI(empty).label("a"), VMI(empty).annotation("a")),
                ("", None, None),
            )

    def test_paths(self):
        for path, value in (
            ("spec.domain.memory.guest", "1Gi"),
            ("spec.domain.disks.0.name", "root"),
            ("spec.domain.disks.1.name", None),
            ("spec.domain.disks.-1.name", None),
            ("spec.domain.disks.name", None),
            ("spec.domain.memory.guest.x", None),
            ("spec.domain.none", None),
            ("spec.none.memory", None),
        ):
            self.assertEqual(self.VMI.at(path), value, path)
        self.assertEqual(self.VMI.at("spec.none", 7), 7)
        self.assertEqual(self.VMI.at("spec.domain.none", 7), 7)

    def test_it_is_a_dict(self):
        self.assertEqual(self.VMI["metadata"]["name"], "vm1")
        self.assertEqual(VMI({"a": 1}), {"a": 1})


class Registration(unittest.TestCase):
    def test_functions_that_could_never_run(self):
        async def asynchronous(vmi, domain):
            await asyncio.sleep(0)

        def generator(vmi, domain):
            yield

        def three(a, b, c):
            pass

        def named(vmi, domain, *, why):
            pass

        class Hooks:
            def method(self, vmi, domain):
                pass

        for function, says in (
            (
                asynchronous,
                "asynchronous or a generator, and hooks are not: define it with def, and call asyncio.run inside",
            ),
            (generator, "is asynchronous or a generator"),
            (three, "three must take two arguments"),
            (lambda vmi: None, "must take two arguments"),
            (named, "must take two arguments"),
            (Hooks.method, "must take two arguments"),
            (7, "a function is needed, not an int"),
        ):
            for register in (
                Worker("h").on_define_domain,
                Worker("h").edit_domain,
                Worker("h").on_node("preVMStart"),
            ):
                with self.subTest(says), self.assertRaisesRegex(TypeError, says):
                    register(function)
        with self.assertRaisesRegex(
            TypeError, r'on_node needs the name of a hook: @hook.on_node\("preVMStart"\)'
        ):
            Worker("h").on_node(three)

    def test_functions_that_can(self):
        class Hooks:
            def method(self, vmi, domain):
                return "m"

            def __call__(self, vmi, domain):
                return "c"

        def more(vmi, domain, level=1, *, why=None):
            return "d"

        for function in (Hooks().method, Hooks(), more, lambda *both: "v"):
            hook = Worker("h")
            self.assertIs(hook.on_define_domain(function), function)
            self.assertEqual(len(hook.invoke("onDefineDomain", {}, "x")), 1)

    def test_one_domain_hook(self):
        hook = Worker("h")
        hook.edit_domain(lambda vmi, doc: None)
        with self.assertRaisesRegex(ValueError, "onDefineDomain is already registered"):
            hook.on_define_domain(lambda vmi, domain: None)

    def test_parentheses_make_no_difference(self):
        hook = Worker("h")

        @hook.edit_domain()
        def edit(vmi, doc):
            doc.ensure("a")

        @hook.pre_cloud_init_iso()
        def data(vmi, data):
            return None

        other = Worker("h")

        @other.on_define_domain()
        def define(vmi, domain):
            return "<b/>"

        self.assertEqual(hook.invoke("onDefineDomain", {}, "<d/>"), "<d><a></a></d>")
        self.assertEqual(other.invoke("onDefineDomain", {}, "<d/>"), "<b/>")

    def test_cancellation_comes_with_threads(self):
        self.assertFalse(Worker("h").cancellable)
        self.assertTrue(Worker("h", concurrency=2).cancellable)
        self.assertTrue(Worker("h", cancellable=True).cancellable)

    def test_errors_have_one_base(self):
        for error in (Refused, InvalidParams, Cancelled):
            self.assertTrue(issubclass(error, HookError))


if __name__ == "__main__":
    unittest.main()
