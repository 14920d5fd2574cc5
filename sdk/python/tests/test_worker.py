"""A worker, and typical mistakes of hooks in one."""

import array
import builtins
import fcntl
import functools
import json
import mmap
import os
import signal
import sys
import tempfile
import termios
import threading
import unittest
import unittest.mock

from support import LIMIT, PYTHON, SDK, Running, run

sys.path.insert(0, str(SDK))

from kubevirt_hook import MAX_FRAME_BYTES, Worker

FIXTURE = SDK / "tests" / "fixture.py"
FAULT = {"code": -32603, "message": "a fault in the hook's code; its log has the trace"}
F_GETPIPE_SZ = 1032  # `fcntl` has it from Python 3.10 on
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
                self.assertRaisesRegex(ValueError, "invalid name of a node hook"),
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


class Misuse(unittest.TestCase):
    def check(self, code, result=UNCHANGED, log="", **call):
        """Checks the response to one call and the log; the worker keeps serving and exits with 0."""
        with Running(FIXTURE) as worker:
            self.assertEqual(worker.call({"run": code}, **call), result)
            self.assertEqual(worker.call({}), UNCHANGED)
            status, rest, seen = worker.end()
            self.assertEqual((status, rest), (0, b""), seen)
            self.assertIn(log, "\n".join([seen, *(it["message"] for it in worker.lines)]))
            return worker.lines

    def test_what_is_printed_is_logged(self):
        self.check("print('from the hook')", log="printed at import, from the hook\n")
        self.check("sys.stdout.write('no line break')", log="no line break")
        self.check("os.write(1, b'to the descriptor')", log="to the descriptor")
        self.check("echo('from a child')", log="from a child\n")
        self.check("print('\\udc80')", log="\\udc80")

    def test_children_cannot_take_messages(self):
        self.check(
            "result = subprocess.run('cat', stdout=subprocess.PIPE).stdout.decode()", {"domain": ""}
        )
        self.check("result = sys.stdin.read()", {"domain": ""})

    def test_children_have_neither_the_variable_nor_the_pipes(self):
        code = "result = subprocess.getoutput('env; ls -l /proc/self/fd')"
        with Running(FIXTURE) as worker:
            seen = worker.call({"run": code})["domain"]
        self.assertIn("PYTHONPATH=", seen)
        self.assertNotIn("KUBEVIRT_HOOK_PROTOCOL", seen)
        # The child's own stdout and stderr.
        self.assertEqual(seen.count("pipe:"), 2, seen)

    def test_a_child_that_comes_back_from_the_hook_says_nothing(self):
        self.check("os.fork()", log="fixture: a forked child process returned from a hook\n")
        self.check(
            "if os.fork() == 0: hook.log.warning('from a fork'); os._exit(0)\nos.wait()",
            log="from a fork\n",
        )

    def test_results_of_a_wrong_type(self):
        define = "onDefineDomain must return a str, bytes, Document or None, not a"
        self.check("result = 7", FAULT, define + "n int")
        self.check("result = b'\\xff'", FAULT, "has returned bytes that are not UTF-8")
        self.check(
            "async def later(): pass\nresult = later()",
            FAULT,
            define + " coroutine; a hook that is asynchronous calls asyncio.run itself",
        )
        cloud_init = {"method": "preCloudInitIso", "cloudInitData": {}}
        self.check(
            "result = '{}'",
            FAULT,
            "preCloudInitIso must return a dict or None, not a str",
            **cloud_init,
        )
        node = {"method": "preVMStart", "nodeName": "a"}
        self.check("result = True", FAULT, "preVMStart must return None, not a bool", **node)
        self.check("pass", {}, **node)

    def test_results_that_json_cannot_hold(self):
        cloud_init = {"method": "preCloudInitIso", "cloudInitData": {}}
        self.check(
            "result = {'UserData': b''}", FAULT, "bytes is not JSON serializable", **cloud_init
        )
        self.check("result = {'UserData': float('nan')}", FAULT, "not JSON compliant", **cloud_init)
        self.check("result = {}; result['a'] = result", FAULT, "Circular reference", **cloud_init)

    def test_lone_surrogates(self):
        self.check("result = '<domain>\\udc80</domain>'", FAULT, "has returned a lone surrogate")
        self.check("raise Refused('a\\udc80b')", {"code": -32000, "message": "a\\udc80b"})
        data = {"UserData": "é\udc80"}
        cloud_init = {"method": "preCloudInitIso", "cloudInitData": data}
        self.check("result = subject", {"cloudInitData": data}, **cloud_init)

    def test_exceptions_of_every_kind(self):
        lines = self.check("raise ValueError('s3cr3t')", FAULT)
        self.assertEqual([(it["level"], it["id"]) for it in lines], [("error", 2)])
        self.assertNotIn("s3cr3t", lines[0]["message"])
        self.assertRegex(
            lines[0]["message"], r'code\nValueError\n  File ".*fixture.py", line [0-9]+, in'
        )
        self.check("sys.exit(0)", FAULT, "SystemExit")
        for other in ("asyncio.CancelledError", "KeyboardInterrupt", "GeneratorExit"):
            lines = self.check(f"import asyncio; raise {other}('s3cr3t')", FAULT, other[-10:])
            self.assertNotIn("s3cr3t", str(lines))
        [line] = self.check("def f(): f()\nf()", FAULT, "RecursionError")
        self.assertLess(len(line["message"].splitlines()), 40)
        self.assertIn(" more\n", line["message"])
        self.check(
            "raise Refused('no', retryable=True)",
            {"code": -32000, "message": "no", "data": {"retryable": True}},
        )
        long = {"code": -32000, "message": "é" * 8192}
        self.check("raise Refused('é' * 10_000_000)", long)

    def test_exceptions_whose_own_code_fails(self):
        evil = "\n    def __str__(self): 1 / 0"
        for code, message in (
            (f"class R(Refused):{evil}\nraise R('x')", "a R whose str() fails with ZeroDivisionError"),
            ("class R:\n    def __str__(self): sys.exit(3)\nraise Refused(R())",
             "a Refused whose str() fails with SystemExit"),
            ("class R(Refused):\n    def __init__(self): pass\nraise R()",
             "the hook refuses, and gives no reason"),
            ("raise Refused('')", "the hook refuses, and gives no reason"),
        ):  # fmt: skip
            self.check(code, {"code": -32000, "message": message})
            ended = run([*PYTHON, FIXTURE, "--vmi", json.dumps({"run": code}), "--domain", "<a/>"])
            self.assertEqual(
                (ended.returncode, ended.stderr.decode()),
                (1, f"printed at import, fixture: {message}\n"),
            )
        for code, log in (
            ("class E(Exception):\n    @property\n    def __cause__(self): raise KeyError('s3cr3t')\nraise E('s3cr3t')",
             "whose exception raises KeyError"),
            ("class M(type):\n    __module__ = property(lambda cls: 1 / 0)\nclass E(Exception, metaclass=M): pass\nraise E('s3cr3t')",
             "an exception whose type has no name"),
            ("sys.excepthook = lambda *_: sys.exit(4)\n1 / 0", "sys.excepthook fails\nSystemExit"),
        ):  # fmt: skip
            self.assertNotIn("s3cr3t", str(self.check(code, FAULT, log)))

    @unittest.skipUnless(hasattr(builtins, "ExceptionGroup"), "Python 3.11 has groups")
    def test_exception_groups(self):
        refused = {"code": -32000, "message": "no"}
        for code in (
            "raise ExceptionGroup('s3cr3t', [ValueError('s3cr3t'), Refused('no')])",
            "raise ExceptionGroup('s3cr3t', [ExceptionGroup('s3cr3t', [Refused('no')])])",
            "try: raise ExceptionGroup('s3cr3t', [Refused('no')])\nexcept Exception as e: raise OSError('s3cr3t') from e",
        ):
            [line] = self.check(code, refused)
            self.assertEqual(line["level"], "info")
            self.assertNotIn("s3cr3t", line["message"])
        [line] = self.check(
            "raise ExceptionGroup('s3cr3t', [ValueError('s3cr3t'), KeyError('s3cr3t')])", FAULT
        )
        found = [it for it in line["message"].splitlines() if not it.startswith("  ")]
        self.assertEqual(
            found[1:], ["ExceptionGroup", "caused by ValueError", "caused by KeyError"]
        )

    def test_exceptions_outside_of_the_hook(self):
        for code, log in (
            ("def f(): raise KeyError('s3cr3t')\nt = threading.Thread(target=f); t.start(); t.join()",
             "a fault in a thread of the hook's\nKeyError\n  File "),
            ("class D:\n    def __del__(self): raise KeyError('s3cr3t')\nD()",
             "an exception in a finalizer or the like\nKeyError\n  File "),
        ):  # fmt: skip
            if "thread" in log and not hasattr(threading, "__excepthook__"):
                continue  # Python 3.9 prints it
            self.assertNotIn("s3cr3t", str(self.check(code, log=log)))

    def test_a_signal_handler_that_raises_outside_of_a_call(self):
        for exception, status, log in (
            ("OSError(32, 's3cr3t')", 1, "fixture: Broken pipe\n"),
            ("TimeoutError('s3cr3t')", 1, "fixture: TimeoutError was raised outside of a call\n"),
            ("KeyError('s3cr3t')", 1, "fixture: KeyError was raised outside of a call\n"),
            ("SystemExit(0)", 0, ""),
        ):
            code = f"import signal\ndef late(*_): raise {exception}\nsignal.signal(signal.SIGALRM, late)"
            with self.subTest(exception), Running(FIXTURE) as worker:
                self.assertEqual(worker.call({"run": code}), UNCHANGED)
                worker.process.send_signal(signal.SIGALRM)
                self.assertEqual(worker.process.wait(LIMIT), status)
                self.assertEqual(worker.process.stderr.read().decode(), f"printed at import, {log}")

    def test_descriptors_that_are_closed(self):
        hook = [*PYTHON, FIXTURE]
        arguments = ["--vmi", '{"run": "print(1)"}', "--domain", "<a/>"]
        for closed, more, expected in (
            ("0<&-", arguments, (0, "<a/>", "printed at import, 1\n")),
            ("2>&-", arguments, (0, "<a/>", "")),
            ("0<&- 2>&-", arguments, (0, "<a/>", "")),
            ("1>&-", arguments, (1, "", "fixture: cannot write to stdout: Bad file descriptor\n")),
            ("0<&-", [], (0, "", "printed at import, ")),  # as at EOF
            ("0<&- 2>&-", [], (0, "", "")),
            ("1>&-", [], (1, "", "fixture: cannot write to stdout: Bad file descriptor\n")),
        ):
            with self.subTest(closed, worker=not more):
                environment = {} if more else {"KUBEVIRT_HOOK_PROTOCOL": "1"}
                ended = run(["sh", "-c", f'exec "$@" {closed}', "sh", *hook, *more], **environment)
                found = (ended.returncode, ended.stdout.decode(), ended.stderr.decode())
                self.assertEqual(found, expected)

    def test_an_exit_that_nothing_can_stop(self):
        with Running(FIXTURE) as worker:
            worker.start_call({"run": "os._exit(3)"})
            self.assertIsNone(worker.receive())
            self.assertEqual(worker.end()[0], 3)

    def test_the_shim_goes_away(self):
        for number in (1, 2):
            with Running(FIXTURE, FIXTURE_CONCURRENCY=str(number)) as worker:
                worker.process.stdout.close()
                worker.start_call({"run": "result = subject * 100_000"})
                self.assertEqual(worker.process.wait(LIMIT), 1)
                self.assertIn(b"Broken pipe", worker.process.stderr.read())


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


class Logging(unittest.TestCase):
    def logged(self, code):
        """Returns the log lines that precede the response to a call."""
        with Running(FIXTURE) as worker:
            ident = worker.start_call({"run": code})
            lines = []
            while (message := worker.receive())["method" if "method" in message else "id"] != ident:
                self.assertEqual(message["method"], "$/log")
                lines.append(message["params"])
            log = worker.end()[2]
            return lines, ident, log

    def test_every_logger_leads_to_the_shim(self):
        code = (
            "hook.log.debug('not by default'); hook.log.info('i %s', 1)\n"
            "import logging; logging.getLogger('x').critical('c')"
        )
        lines, ident, _ = self.logged(code)
        expected = [
            {"level": "info", "message": "i 1", "id": ident},
            {"level": "error", "message": "c", "id": ident},
        ]
        self.assertEqual(lines, expected)

    def test_a_trace_goes_with_its_line(self):
        lines, _, _ = self.logged(
            "try: 1 / 0\nexcept ArithmeticError: hook.log.exception('failed')"
        )
        self.assertEqual(lines[0]["level"], "error")
        self.assertTrue(lines[0]["message"].startswith("failed\nTraceback"), lines)
        self.assertTrue(lines[0]["message"].endswith("ZeroDivisionError: division by zero"), lines)

    def test_a_thread_of_the_hook_has_no_call(self):
        code = "t = threading.Thread(target=lambda: hook.log.warning('w')); t.start(); t.join()"
        self.assertEqual(self.logged(code)[0], [{"level": "warning", "message": "w"}])

    def test_a_program_that_sets_logging_up_keeps_its_setup(self):
        lines, _, log = self.logged(
            "import logging; logging.basicConfig(format='mine: %(message)s'); hook.log.error('e')"
        )
        self.assertEqual(lines, [])
        self.assertIn("mine: e\n", log)

    def test_a_signal_handler_that_logs_in_the_midst_of_an_answer(self):
        code = (
            "import signal\n"
            "signal.signal(signal.SIGALRM, lambda *_: hook.log.warning('late'))\n"
            "result = 'x' * 10_000_000"
        )
        with Running(FIXTURE) as worker:
            worker.start_call({"run": code})
            # The response does not fit the pipe: once the pipe is full, the write is in progress.
            # (The head of the message occupies a separate page.)
            size, filled = fcntl.fcntl(worker.process.stdout, F_GETPIPE_SZ), array.array("i", [0])
            while filled[0] <= size - mmap.PAGESIZE and worker.process.poll() is None:
                fcntl.ioctl(worker.process.stdout, termios.FIONREAD, filled)
            worker.process.send_signal(signal.SIGALRM)
            worker.wait_for_log("late")
            self.assertEqual(worker.receive()["result"]["domain"], "x" * 10_000_000)
            self.assertEqual(worker.end()[0], 0)

    def test_a_signal_handler_that_logs_at_any_step_of_an_answer(self):
        # The handler runs before each bytecode of the function that writes the response, or before
        # each line: Python 3.12 does not trace bytecodes that are asked for so late.
        code = (
            "import kubevirt_hook, signal\n"
            "def late(*_):\n"
            "    raised.append(hook.log.warning('late'))\n"
            "def step(frame, event, _):\n"
            "    if frame.f_code is kubevirt_hook._Channel.write.__code__:\n"
            "        frame.f_trace_opcodes = True\n"
            "        if event in ('opcode', 'line'): signal.raise_signal(signal.SIGALRM)\n"
            "        return step\n"
            "raised = sys.modules['raised'] = []\n"
            "signal.signal(signal.SIGALRM, late)\n"
            "sys.settrace(step)\n"
        )
        after = "sys.settrace(None); result = str(len(sys.modules.pop('raised')))"
        with Running(FIXTURE) as worker:
            ident, lines = worker.start_call({"run": code}), 0
            while (message := worker.receive()).get("id") != ident:
                self.assertEqual(message["params"]["message"], "late")
                lines += 1
            self.assertEqual(message["result"], UNCHANGED)
            # The last steps come after the response.
            ident = worker.start_call({"run": after})
            while (message := worker.receive()).get("id") != ident:
                self.assertEqual(message["params"]["message"], "late")
                lines += 1
            status, rest, log = worker.end()
        self.assertEqual((status, rest), (0, b""))
        # No line is lost: those during the write are on stderr.
        raised, on_stderr = int(message["result"]["domain"]), log.count("late\n")
        self.assertEqual(raised, lines + on_stderr)
        self.assertTrue(lines > 2 and on_stderr > 2, (lines, on_stderr))

    def test_fields_of_every_kind_keep_their_line(self):
        for code, value in (
            ("2**63 - 1", 2**63 - 1),
            ("-2**63", -(2**63)),
            ("2**63", str(2**63)),
            ("-2**63 - 1", str(-(2**63) - 1)),
            ("10**400", str(10**400)),
            ("10**5000", "an int whose str() fails with ValueError"),
            ("float('nan')", "nan"),
            ("float('-inf')", "-inf"),
            ("1e308", 1e308),
            ("True", True),
            ("None", "None"),
            ("'x' * 10_000_000", "x" * 1024),
            ("'\\udc80'", "\\udc80"),
            ("b'\\xff'", "b'\\xff'"),
            ("{'a': [1, {'b': None}]}", "{'a': [1, {'b': None}]}"),
            ("OSError('e')", "e"),
            ("type('T', (), {'__str__': lambda self: 1 / 0})()", "a T whose str() fails with ZeroDivisionError"),
            ("type('T', (), {'__str__': lambda self: sys.exit()})()", "a T whose str() fails with SystemExit"),
            ("type('T', (str,), {'__str__': lambda self: 1 / 0})('text')", "text"),
            ("type('T', (int,), {'__repr__': lambda self: 1 / 0})(7)", 7),
            ("[]; a = extra['f']; a.append(a)", "[[...]]"),
            ("[]\nfor _ in range(100_000): extra['f'] = [extra['f']]", "a list whose str() fails with RecursionError"),
        ):  # fmt: skip
            with self.subTest(code):
                lines, ident, log = self.logged(
                    f"extra = {{}}; extra['f'] = {code}\nhook.log.warning('w', extra=extra)"
                    "; del extra['f']"
                )
                expected = {"level": "warning", "message": "w", "id": ident, "fields": {"f": value}}
                self.assertEqual((lines, log), ([expected], "printed at import, "))
                self.assertIs(type(lines[0]["fields"]["f"]), type(value))

    def test_names_of_fields_are_texts(self):
        code = (
            "hook.log.warning('w', extra={1: 2, None: 3, 'a' * 10_000_000: 4, '\\udc80': 5,"
            " type('T', (), {'__str__': lambda self: 1 / 0})(): 6})"
        )
        lines, _, log = self.logged(code)
        fields = {"1": 2, "None": 3, "a" * 64: 4, "\\udc80": 5}
        fields["a T whose str() fails with ZeroDivisionError"] = 6
        self.assertEqual((lines[0]["fields"], log), (fields, "printed at import, "))

    def test_a_line_that_cannot_be_formatted_does_not_fail_the_call(self):
        lines, _, log = self.logged(
            "hook.log.warning('%d', 'x'); hook.log.warning('\\udc80' + 'y' * 10_000)"
        )
        self.assertIn("Logging error", log)
        self.assertEqual([line["message"] for line in lines], ["\\udc80" + "y" * 8191])


EARLY = """
import logging
{imports}
from kubevirt_hook import Worker
{before}
hook = Worker("early")
hook.on_define_domain(lambda vmi, domain: hook.log.debug("in a call"))
hook.log.info("by the hook")
logging.getLogger("x").warning("by %s", "x", extra={{"disk": "vda"}})
{after}
"""


class LoggingBeforeRun(unittest.TestCase):
    def program(self, after, before="", imports=""):
        text = EARLY.format(after=after, before=before, imports=imports)
        file = tempfile.NamedTemporaryFile("w", suffix=".py")
        self.addCleanup(file.close)
        file.write(text)
        file.flush()
        return file.name

    def test_it_keeps_its_level(self):
        with Running(self.program("hook.run()")) as worker:
            expected = [
                {"level": "info", "message": "by the hook"},
                {"level": "warning", "message": "by x", "fields": {"disk": "vda"}},
            ]
            self.assertEqual(worker.lines, expected)
            self.assertEqual(worker.end(), (0, b"", ""))

    def test_in_exec_mode_too(self):
        command = [sys.executable, "-S", self.program("hook.run()")]
        ended = run([*command, "--vmi", "{}", "--domain", "<a/>"])
        self.assertEqual(ended.stderr, b"INFO: by the hook\nWARNING: by x disk=vda\n")

    def lines(self, text, levels="1"):
        """Returns what a program logs before its first answer, as a worker and for one call."""
        file = tempfile.NamedTemporaryFile("w", suffix=".py")
        self.addCleanup(file.close)
        file.write(text)
        file.flush()
        with Running(file.name, SIDECAR_SHIM_STDERR_LEVELS=levels) as worker:
            self.assertEqual(worker.call({}), UNCHANGED)
            lines = [
                " ".join([it["level"], it["message"], *map(str, it.get("fields", ""))])
                for it in worker.lines
            ]
            self.assertEqual(worker.end(), (0, b"", ""))
        command = [*PYTHON, file.name, "--vmi", "{}", "--domain", "<a/>"]
        ended = run(command, SIDECAR_SHIM_STDERR_LEVELS=levels)
        self.assertEqual((ended.returncode, ended.stdout), (0, b"<a/>"))
        return lines, ended.stderr.decode()

    def test_what_is_logged_before_there_is_a_worker_keeps_level_and_fields(self):
        lines, stderr = self.lines(
            "import logging\nfrom kubevirt_hook import Worker\n"
            "logging.getLogger('x').warning('w', extra={'disk': 'vda'})\n"
            "hook = Worker('early')\nhook.on_define_domain(lambda vmi, domain: None)\nhook.run()"
        )
        self.assertEqual(lines, ["warning w disk"])
        self.assertEqual(stderr, "<4>w disk=vda\n")

    def test_what_configures_logging_by_default_is_no_setup(self):
        run_hook = "hook = Worker('early')\n@hook.on_define_domain\ndef define(vmi, domain): logging.info('in a call')\n{}\nhook.run()"
        for before, after, wanted in (
            ("logging.warning('w')", "logging.error('e')", "4w 3e 6in a call"),
            ("", "logging.warning('w')", "4w 6in a call"),
            ("logging.basicConfig(level='DEBUG')", "logging.debug('d')", "7d 6in a call"),
            ("logging.basicConfig(level='ERROR')", "logging.warning('w')", ""),
            ("", "logging.getLogger().setLevel('WARNING'); logging.info('i')", ""),
            ("logging.basicConfig()", "logging.getLogger('x').warning('w')", "4w 6in a call"),
        ):
            with self.subTest(before, after=after):
                lines, stderr = self.lines(
                    f"import logging\nfrom kubevirt_hook import Worker\n{before}\n{run_hook.format(after)}"
                )
                numbers = {"debug": 7, "info": 6, "warning": 4, "error": 3}
                found = [f"{numbers[it.split()[0]]}{it.partition(' ')[2]}" for it in lines]
                self.assertEqual(" ".join(found), wanted)
                self.assertEqual([it[1:].replace(">", "", 1) for it in stderr.splitlines()], found)

    def test_another_program_that_imports_a_hook_keeps_its_log(self):
        # Its handler is the default one, and no hook runs.
        hook = "from kubevirt_hook import Worker\nhook = Worker('early')\nhook.log"
        program = f"import logging\nlogging.basicConfig(level='INFO')\n{hook}\nlogging.info('i')"
        self.assertEqual(run([*PYTHON, "-c", program]).stderr, b"INFO:root:i\n")
        # Neither does it lose a warning, however many there were.
        program = f"import logging\n{hook}\nfor n in range(1010): logging.getLogger('x').warning(n)"
        program += "\nimport os; os._exit(0)"
        printed = run([*PYTHON, "-c", program]).stderr.decode().split()
        self.assertEqual(printed, [str(n) for n in range(1000, 1010)])

    def test_a_program_that_never_runs_prints_warnings(self):
        ended = run([sys.executable, "-S", self.program("1 / 0")])
        self.assertIn(b"ZeroDivisionError", ended.stderr)
        self.assertIn(b"\nby x\n", ended.stderr)
        self.assertNotIn(b"by the hook", ended.stderr)

    def test_a_level_of_the_programs_own_wins(self):
        name = self.program("hook.run()", before="logging.getLogger().setLevel(logging.DEBUG)")
        with Running(name) as worker:
            self.assertEqual(worker.call({}), UNCHANGED)
            self.assertEqual(worker.lines[-1], {"level": "debug", "message": "in a call", "id": 2})

    def test_a_handler_of_the_programs_own_gets_all(self):
        own = "logging.basicConfig(format='mine: %(message)s'"
        for before, after, seen in (
            (f"{own}, level='INFO')", "hook.run()", "mine: by the hook\nmine: by x\n"),
            ("", f"{own}); hook.run()", "mine: by the hook\nmine: by x\n"),
        ):
            with Running(self.program(after, before=before)) as worker:
                self.assertEqual(worker.call({}), UNCHANGED)
                self.assertEqual(worker.lines, [])
                self.assertEqual(worker.end()[2], seen)


class Causes(unittest.TestCase):
    def logged(self, code, answer):
        with Running(FIXTURE) as worker:
            self.assertEqual(worker.call({"run": code}), answer)
            return worker.lines

    def test_a_refusal_is_found_wherever_it_is(self):
        refused = {"code": -32000, "message": "no"}
        self.assertEqual(self.logged("raise Refused('no')", refused), [])
        for code in (
            "try: int('s3cr3t')\nexcept ValueError as e: raise Refused('no') from e",
            "try: int('s3cr3t')\nexcept ValueError: raise Refused('no')",
            "raise ValueError('s3cr3t') from Refused('no')",
            "try: raise ValueError('s3cr3t') from Refused('no')\nexcept ValueError as e: raise KeyError('s3cr3t') from e",
        ):
            with self.subTest(code):
                [line] = self.logged(code, refused)
                self.assertEqual((line["level"], line["id"]), ("info", 2))
                self.assertIn("ValueError\n  File ", line["message"])
                self.assertNotIn("s3cr3t", line["message"])
        self.assertEqual(
            self.logged("try: int('x')\nexcept ValueError: raise Refused('no') from None", refused),
            [],
        )

    def test_a_fault_has_its_cause(self):
        code = "a = KeyError(); b = ValueError(); a.__cause__ = b; b.__cause__ = a; raise a"
        [line] = self.logged(code, FAULT)
        self.assertRegex(line["message"], "code\nKeyError\n(  File .*\n)+caused by ValueError$")
        # Words that quote nothing are logged.
        code = "import kubevirt_xml; kubevirt_xml.parse(subject).find('a[@b=s3cr3t]')"
        [line] = self.logged(code, FAULT)
        self.assertIn("PathError: character 6: a value in quotes or", line["message"])
        self.assertNotIn("s3cr3t", line["message"])
        # A refusal in an `except` clause of which another exception came has no say.
        [line] = self.logged("try: raise Refused('no')\nexcept Refused: 1 / 0", FAULT)
        self.assertIn("ZeroDivisionError", line["message"])

    def test_the_programs_own_excepthook_is_called(self):
        code = "sys.excepthook = lambda kind, *_: print('hook:', kind.__name__); 1 / 0"
        with Running(FIXTURE) as worker:
            self.assertEqual(worker.call({"run": code}), FAULT)
            worker.call({"run": "sys.excepthook = lambda: 0; 1 / 0"})
            self.assertEqual(len(worker.lines), 3, "it must not hide the fault")
            self.assertIn("hook: ZeroDivisionError\n", worker.end()[2])


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
