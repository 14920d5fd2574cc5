"""A worker: registration, signals, calls and sizes."""

import functools
import os
import signal
import sys
import tempfile
import unittest
import unittest.mock

from support import LIMIT, SDK, Running, run

sys.path.insert(0, str(SDK))

from kubevirt_hook import MAX_FRAME_BYTES, Worker

FIXTURE = SDK / "tests" / "fixture.py"
FAULT = {"code": -32603, "message": "a fault in the hook's code; its log has the trace"}
UNCHANGED = {"unchanged": True}


class Registration(unittest.TestCase):
    def test_one_function_for_each_hook(self):
        hook = Worker("h")
        for register in (
            hook.on_define_domain,
            hook.pre_cloud_init_iso,
            hook.on_node("preVMStart"),
        ):
            self.assertIs(register(print), print, "a decorated function stays what it is")
            with self.assertRaisesRegex(ValueError, "is already registered"):
                register(print)

    def test_names_of_node_hooks_are_plain_words(self):
        for name in (
            "",
            "PreVMStart",
            "pre-start",
            "é",
            "preé",
            "a" * 64,
            "initialize",
            "$/log",
            "onDefineDomain",
        ):
            with (
                self.subTest(name),
                self.assertRaisesRegex(
                    ValueError, "invalid name .* with a lower-case first letter"
                ),
            ):
                Worker("h").on_node(name)

    def test_concurrency_has_limits(self):
        for number in (0, 65):
            with self.assertRaisesRegex(ValueError, "from 1 to 64"):
                Worker("h", concurrency=number)

    def test_arguments_of_another_type_are_refused(self):
        for more, says in (
            ({"name": 5}, "name must be a str, not an int"),
            ({"name": None}, "name must be a str, not a NoneType"),
            ({"version": 1.0}, "version must be a str, not a float"),
            ({"concurrency": 1.5}, "concurrency must be an int, not a float"),
            ({"concurrency": True}, "concurrency must be an int, not a bool"),
            ({"concurrency": "2"}, "concurrency must be an int, not a str"),
            ({"cancellable": "no"}, "cancellable must be a bool, not a str"),
        ):
            with self.subTest(more), self.assertRaisesRegex(TypeError, f"^{says}$"):
                Worker(**{"name": "h", **more})

    def test_functions_that_cannot_work_are_refused(self):
        async def later(vmi, domain):
            """Would return a coroutine."""

        async def stream(vmi, domain):
            yield

        def generate(vmi, domain):
            yield

        def one(vmi):
            """Takes no document."""

        class Call:
            def __init__(self, function):
                self.function = function

            async def later(self, vmi, domain):
                """A method."""

        for function in (later, stream, generate, Call(None).later):
            for made in (
                function,
                functools.partial(function),
                functools.partial(functools.partial(function), vmi={}),
                functools.lru_cache(function),
                functools.partial(functools.lru_cache(function)),
                type("Object", (), {"__call__": staticmethod(function)})(),
            ):
                with self.subTest(made), self.assertRaisesRegex(TypeError, "and call asyncio.run"):
                    Worker("h").on_define_domain(made)

        async def called(self, vmi, domain):
            """Of an object."""

        with self.assertRaisesRegex(TypeError, "Object is asynchronous or a generator"):
            Worker("h").on_define_domain(type("Object", (), {"__call__": called})())
        for made in (
            one,
            functools.lru_cache(one),
            functools.partial(print, sep=""),  # takes any
            functools.partial(lambda vmi, domain: None, {}),
            type("Object", (), {"__call__": one})(),
            type("Object", (), {"__call__": lambda self, vmi: None})(),
            type("Object", (), {"__call__": lambda self, vmi, domain, more: None})(),
            len,
        ):
            with self.subTest(made):
                if getattr(made, "func", None) is print:
                    self.assertIs(Worker("h").on_define_domain(made), made)
                    continue
                with self.assertRaisesRegex(TypeError, "must take two arguments"):
                    Worker("h").on_define_domain(made)
        with self.assertRaisesRegex(TypeError, "a function is needed, not the class Call"):
            Worker("h").on_define_domain(Call)

    def test_callables_of_every_kind_are_taken(self):
        class Object:
            def __call__(self, vmi, domain):
                return domain + str(vmi["n"])

            def method(self, vmi, domain):
                return self(vmi, domain)

            @classmethod
            def of_class(cls, vmi, domain):
                return cls()(vmi, domain)

        def three(more, vmi, domain):
            return Object()(vmi, domain)

        def wrapped(*arguments):
            return Object()(*arguments)

        for function in (
            Object(),
            Object().method,
            Object.of_class,
            functools.partial(three, 0),
            functools.partial(Object().method),
            functools.wraps(three)(wrapped),
            unittest.mock.Mock(side_effect=wrapped),
        ):
            hook = Worker("h")
            self.assertIs(hook.on_define_domain(function), function)
            self.assertEqual(hook.invoke("onDefineDomain", {"n": 1}, "<a/>"), "<a/>1")

    def test_a_program_without_hooks_says_so(self):
        program = "from kubevirt_hook import Worker\nWorker('empty').run()"
        for more in ({}, {"KUBEVIRT_HOOK_PROTOCOL": "1"}):
            ended = run([sys.executable, "-c", program], **more)
            self.assertEqual(
                (ended.returncode, ended.stderr), (1, b"empty: no hooks are registered\n")
            )

    def test_little_is_imported(self):
        heavy = {
            "argparse",
            "asyncio",
            "dataclasses",
            "inspect",
            "logging",
            "queue",
            "subprocess",
            "threading",
            "typing",
        }
        program = (
            "import sys, json; before = set(sys.modules); "
            "import kubevirt_hook; print(*set(sys.modules) - before)"
        )
        # Isolated from the environment, whose modules would be counted.
        command = [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.append({str(SDK)!r}); {program}",
        ]
        imported = set(run(command).stdout.decode().split())
        self.assertIn("kubevirt_hook", imported)
        self.assertEqual(heavy & imported, set())


class Signals(unittest.TestCase):
    def test_sigterm_ends_it_at_once(self):
        for code in (None, "print('begun', flush=True); time.sleep(3600)"):
            for number in (1, 2):
                with (
                    self.subTest(code, number=number),
                    Running(FIXTURE, FIXTURE_CONCURRENCY=str(number)) as worker,
                ):
                    if code:
                        worker.start_call({"run": code})
                        worker.wait_for_log("begun")
                    worker.process.terminate()
                    status, rest, log = worker.end()
                    self.assertEqual((status, rest), (-signal.SIGTERM, b""), log)


class Calls(unittest.TestCase):
    def test_a_trace_begins_in_the_hooks_own_code(self):
        with Running(FIXTURE) as worker:
            self.assertEqual(worker.call({"run": "1 / 0"}), FAULT)
            [line] = worker.lines
        self.assertIn("ZeroDivisionError\n", line["message"])
        self.assertNotIn("kubevirt_hook.py", line["message"])

    def test_what_a_call_says_of_itself(self):
        code = (
            "c = hook.call; in_time = 59 < c.remaining() <= 60\n"
            "result = f'{c.hook} {c.id} {c.attempt} {c.context} {c.cancelled} {in_time}'"
        )
        invocation = {"deadlineMs": 60000, "attempt": 2, "context": "Boot"}
        with Running(FIXTURE) as worker:
            answer = worker.call({"run": code}, invocation=invocation)
            self.assertEqual(answer, {"domain": "onDefineDomain 2 2 Boot False True"})
            answer = worker.call({"run": "result = str(hook.call.remaining())"})
            self.assertEqual(answer, {"domain": "None"})

    def test_check_stops_a_hook_whose_time_is_over(self):
        with Running(FIXTURE) as worker:
            code = "while True: hook.call.raise_if_cancelled()"
            answer = worker.call({"run": code}, invocation={"deadlineMs": 1, "attempt": 1})
            self.assertEqual(answer, {"code": -32800, "message": "the call was cancelled"})
            self.assertEqual(worker.end()[2], "printed at import, ", "no trace")

    def test_there_is_no_call_outside_of_hooks(self):
        with self.assertRaises(LookupError):
            _ = Worker("h").call

    def test_the_default_declares_neither_cancellation_nor_concurrency(self):
        with Running(FIXTURE) as worker:
            capabilities = {"attachments": True, "cancel": False, "concurrency": 1}
            self.assertEqual(worker.initialized["capabilities"], capabilities)

    def test_concurrency_declares_cancellation(self):
        with Running(FIXTURE, FIXTURE_CONCURRENCY="2") as worker:
            self.assertIs(worker.initialized["capabilities"]["cancel"], True)
            code = "print('begun', flush=True)\nwhile True: hook.call.raise_if_cancelled()"
            ident = worker.start_call({"run": code})
            worker.wait_for_log("begun")
            cancel = {"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": ident}}
            worker.send(cancel)
            self.assertEqual(worker.receive()["error"]["code"], -32800)

    def test_hooks_run_in_the_main_thread_unless_they_need_others(self):
        code = "result = str(threading.current_thread() is threading.main_thread())"
        for number, expected in (1, "True"), (2, "False"):
            with Running(FIXTURE, FIXTURE_CONCURRENCY=str(number)) as worker:
                self.assertEqual(worker.call({"run": code}), {"domain": expected})

    def test_calls_run_at_once(self):
        with Running(FIXTURE, FIXTURE_CONCURRENCY="4") as worker:
            # The barrier opens only if all calls run at the same time.
            idents = {
                worker.start_call(
                    {"run": "together.wait(); result = subject + vmi['n']", "n": str(n)}
                )
                for n in range(4)
            }
            answers = [worker.receive() for _ in idents]
            self.assertEqual({answer["id"] for answer in answers}, idents)
            results = sorted(answer["result"]["domain"] for answer in answers)
            self.assertEqual(results, [f"<domain/>{n}" for n in range(4)])
            self.assertEqual(worker.end()[0], 0)

    def test_every_call_that_was_read_is_answered_before_the_end(self):
        with Running(FIXTURE, FIXTURE_CONCURRENCY="2") as worker:
            idents = [worker.start_call({"run": "time.sleep(0.01)"}) for _ in range(20)]
            worker.process.stdin.close()
            self.assertEqual(sorted(worker.receive()["id"] for _ in idents), idents)
            self.assertIsNone(worker.receive())
            self.assertEqual(worker.process.wait(LIMIT), 0)


class Sizes(unittest.TestCase):
    def test_the_longest_frame(self):
        longest = "<" + "é" * ((MAX_FRAME_BYTES - 1) // 2)
        self.assertEqual(len(longest.encode()), MAX_FRAME_BYTES)
        with Running(FIXTURE) as worker:
            answer = worker.call({"run": "result = subject[1:] + '>'"}, longest)
            self.assertEqual(answer["domain"], longest[1:] + ">")
            answer = worker.call({"run": "result = subject + '>'"}, longest)
            self.assertEqual(answer, {"code": -32000, "message": "the result does not fit a frame"})
            self.assertEqual(worker.call({}, longest), UNCHANGED)
        with Running(FIXTURE, attachments=False) as worker:
            # Escaped characters take more bytes in JSON.
            answer = worker.call(
                {"run": "result = '\\n' * (len(subject) // 2)"}, "x" * MAX_FRAME_BYTES
            )
            self.assertEqual(answer, {"code": -32000, "message": "the result does not fit a frame"})

    def test_memory_follows_the_size_of_a_document(self):
        with Running(FIXTURE) as worker:
            code = "result = subject + '>'"
            report = {"run": "result = str(peak())"}
            at_rest = int(worker.call(report)["domain"])
            size = 4 << 20
            worker.call({"run": code}, "x" * size)
            once = int(worker.call(report)["domain"])
            # Bytes and text, of the request and of the response, plus a margin.
            self.assertLess(once - at_rest, 6 * size)
            for _ in range(50):
                worker.call({"run": code}, "x" * size)
            self.assertLess(int(worker.call(report)["domain"]) - once, size)


class Packaging(unittest.TestCase):
    def test_one_copied_file_is_enough(self):
        with tempfile.TemporaryDirectory() as directory:
            for name, source in (
                ("kubevirt_hook.py", SDK / "kubevirt_hook.py"),
                ("hook.py", FIXTURE),
            ):
                with open(os.path.join(directory, name), "wb") as copy:
                    copy.write(source.read_bytes())
            with Running(os.path.join(directory, "hook.py"), PYTHONPATH="") as worker:
                self.assertEqual(worker.call({}), UNCHANGED)


if __name__ == "__main__":
    unittest.main()
