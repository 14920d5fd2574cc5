"""What hooks and their programs log."""

import array
import fcntl
import mmap
import signal
import sys
import tempfile
import termios
import unittest

from support import PYTHON, SDK, Running, run

sys.path.insert(0, str(SDK))


FIXTURE = SDK / "tests" / "fixture.py"
F_GETPIPE_SZ = 1032  # `fcntl` has it from Python 3.10 on
UNCHANGED = {"unchanged": True}


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


if __name__ == "__main__":
    unittest.main()
