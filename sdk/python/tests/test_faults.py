"""What hooks and their exceptions do wrong, and what becomes of it."""

import builtins
import json
import signal
import sys
import threading
import unittest

from support import LIMIT, PYTHON, SDK, Running, run

sys.path.insert(0, str(SDK))


FIXTURE = SDK / "tests" / "fixture.py"
FAULT = {"code": -32603, "message": "a fault in the hook's code; its log has the trace"}
UNCHANGED = {"unchanged": True}


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

    def test_cloud_init_data_that_is_changed_but_not_returned(self):
        said = "preCloudInitIso has changed the data and returned None: return the data"
        given = {"method": "preCloudInitIso", "cloudInitData": {"UserData": "s3cr3t", "a": [{}]}}
        for code in (
            "subject['UserData'] = 'new'",
            "del subject['a']",
            "subject['a'][0]['b'] = None",
            "subject['a'] = {1, 2}",
        ):
            with self.subTest(code):
                self.check(code, FAULT, said, **given)
        self.check("", UNCHANGED, **given)
        self.check("subject = dict(subject, UserData='new')", UNCHANGED, **given)

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
        for code, words in (
            ("root.set('b', 4)", "TypeError: a value must be a str, not int"),
            ("root.text = 's3cr3t\\0'", "ValueError: the text has a character that XML does not"),
            ("root.find('a[@s3cr3t=?]', 4)", "TypeError: a value must be a str, not int"),
            ("root.remove()", "ValueError: the root cannot be removed"),
            ("root.insert_before('a')", "ValueError: nothing can stand before the root"),
            ("part('', 's3cr3t!', '#!')", "ValueError: the name of a part has 1 to 64 letters"),
            ("part('', 'a', 's3cr3t')", "ValueError: the content of a part starts with #cloud"),
            (
                "import contextvars; contextvars.Context().run(lambda: hook.call)",
                "LookupError: no call runs in this thread",
            ),
        ):
            with self.subTest(code):
                setup = (
                    "import kubevirt_xml; root = kubevirt_xml.parse(subject).root\n"
                    "from kubevirt_cloud_init import put_part as part\n"
                )
                [line] = self.logged(setup + code, FAULT)
                self.assertIn(f"\n{words}", line["message"])
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


if __name__ == "__main__":
    unittest.main()
