"""Argv style: one process per call, as with the Go shim and `--mode exec`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest

from support import LIMIT, PYTHON, SDK, Running, environment, frame, run

FIXTURE = SDK / "tests" / "fixture.py"
PROGRAM = f"""#!{sys.executable} -S
import sys
sys.path.append({str(SDK / "tests")!r})
from fixture import hook
hook.run()
"""


class Argv(unittest.TestCase):
    def setUp(self):
        """Installs the fixture as an executable in an empty directory, as in an image."""
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.program = os.path.join(self.directory, "my-hook")
        with open(self.program, "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        os.chmod(self.program, 0o755)

    def link(self, name):
        path = os.path.join(self.directory, name)
        os.symlink("my-hook", path)
        return path

    def ends(self, ended, status, output=b"", log=""):
        self.assertEqual((ended.returncode, ended.stdout), (status, output), ended.stderr.decode())
        self.assertIn(log, ended.stderr.decode())


class Names(Argv):
    def test_the_flags_say_which_hook(self):
        define = {"run": "result = f'{hook.call.hook} {subject}'"}
        vmi, domain = ["--vmi", json.dumps(define)], ["--domain", "<domain/>"]
        for arguments in (vmi + domain, domain + vmi):
            self.ends(run([self.program, *arguments]), 0, b"onDefineDomain <domain/>")
        cloud_init = {"run": "result = {hook.call.hook: subject}"}
        vmi, data = ["--vmi", json.dumps(cloud_init)], ["--cloud-init", ' {"UserData": "\\u00e9"} ']
        for arguments in (vmi + data, data + vmi):
            self.ends(
                run([self.program, *arguments]), 0, '{"preCloudInitIso":{"UserData":"é"}}'.encode()
            )

    def test_the_name_says_which_hook(self):
        vmi = json.dumps({"run": "print(hook.call.hook, subject)"})
        for name, flag, value, output in (
            ("onDefineDomain", "--domain", "<domain/>", b"<domain/>"),
            ("preCloudInitIso", "--cloud-init", " {} ", b" {} "),
            ("preVMStart", "--node", "node-a", b""),
        ):
            ended = run([self.link(name), "--vmi", vmi, flag, value])
            self.ends(ended, 0, output, f"{name} {value if flag != '--cloud-init' else {}}\n")

    def test_command_lines_that_name_no_call(self):
        define = [self.link("onDefineDomain")]
        cloud_init = [self.link("preCloudInitIso")]
        node, other = [self.link("preVMStart")], [self.link("postVMStart")]
        for command, said in (
            ([self.program], "onDefineDomain takes --vmi JSON --domain XML"),
            ([self.program, "--vmi", "{}"], "onDefineDomain takes --vmi JSON --domain XML"),
            ([self.program, "--domain", "<domain/>"], "onDefineDomain takes"),
            ([self.program, "--vmi", "{}", "--domain"], "--domain has no value"),
            ([self.program, "--vmi", "{}", "--vmi", "{}"], "--vmi is given twice"),
            (
                [self.program, "{}", "--vmi"],
                "argument 1 is not one of --vmi, --domain, --cloud-init, --node",
            ),
            ([self.program, "--vmi", "{}", "s3cr3t", "--domain"], "argument 3 is not one of"),
            ([self.program, "--vmi", "{}", "--node", "a"], "--node does not select a hook"),
            ([*other, "--vmi", "{}", "--node", "a"], "--node does not select a hook"),
            ([*define, "--vmi", "{}", "--cloud-init", "{}"], "onDefineDomain takes"),
            ([*define, "--vmi", "{}", "--domain", "x", "--node", "a"], "onDefineDomain takes"),
            (
                [*cloud_init, "--vmi", "{}", "--domain", "x"],
                "preCloudInitIso takes --vmi JSON --cloud-init JSON",
            ),
            ([*node, "--vmi", "{}", "--domain", "x"], "preVMStart takes --vmi JSON --node NAME"),
        ):
            with self.subTest(command[1:]):
                ended = run(command)
                self.ends(ended, 2, log=f"fixture: {said}")
                self.assertIn(
                    "\nusage: onDefineDomain --vmi JSON --domain XML\n", ended.stderr.decode()
                )
                self.assertNotIn("s3cr3t", ended.stderr.decode())

    def test_a_name_of_a_hook_that_is_not_there(self):
        program = "from kubevirt_hook import Worker\nhook = Worker('h')\nhook.on_node('preVMStart')(print)\nhook.run()"
        for name, flag in ("onDefineDomain", "--domain"), ("h", "--domain"):
            path = os.path.join(self.directory, name)
            with open(path, "w", encoding="utf-8") as file:
                file.write(program)
            self.ends(
                run([*PYTHON, path, "--vmi", "{}", flag, "x"]),
                2,
                log="this program has no hook onDefineDomain",
            )

    def test_a_test_that_imports_a_hook_without_a_guard(self):
        hint = '\nis it imported, as by a test? Then call run() only if __name__ == "__main__"\n'
        with open(os.path.join(self.directory, "my_hook.py"), "w", encoding="utf-8") as file:
            file.write(PROGRAM)
        more = {"PYTHONPATH": f"{SDK}{os.pathsep}{self.directory}"}
        for arguments in (["-m", "unittest", "my_hook"], ["-c", "import my_hook"]):
            ended = run([sys.executable, *arguments], **more)
            self.assertEqual(ended.returncode, 2, ended.stderr)
            self.assertTrue(ended.stderr.decode().endswith(hint), ended.stderr)
        self.assertNotIn(hint, run([self.program]).stderr.decode())

    def test_help(self):
        ended = run([self.program, "--help"])
        self.assertEqual((ended.returncode, ended.stderr), (0, b""))
        for line in ("onDefineDomain --vmi JSON --domain XML", "preVMStart --vmi JSON --node NAME"):
            self.assertIn(line, ended.stdout.decode())


class Endings(Argv):
    def call(self, code, domain="<domain/>", **more):
        return run([self.program, "--vmi", json.dumps({"run": code}), "--domain", domain], **more)

    def test_failures(self):
        for code, log in (
            (
                "raise Refused('disk vda\\udc80 is not allowed')",
                "fixture: disk vda\\udc80 is not allowed\n",
            ),
            ("from kubevirt_hook import InvalidParams; raise InvalidParams('no')", "fixture: no\n"),
            (
                "from kubevirt_hook import Cancelled; raise Cancelled",
                "fixture: the call was cancelled\n",
            ),
            ("1 / 0", "ERROR: a fault in the hook's code\nZeroDivisionError\n  File "),
            ("sys.exit(0)", "ERROR: a fault in the hook's code\nSystemExit\n  File "),
            ("raise KeyboardInterrupt('s3cr3t')", "code\nKeyboardInterrupt\n  File "),
            ("result = 7", "str, bytes, Document or None, not an int\n"),
            ("result = '\\udc80'", "onDefineDomain has returned a lone surrogate\n"),
        ):
            with self.subTest(code):
                self.ends(self.call(code), 1, log=log)

    def test_documents_that_cannot_be_used(self):
        for arguments, log in (
            (["--vmi", "[]", "--domain", "x"], "vmi is missing or not an object"),
            (["--vmi", "{", "--domain", "x"], "vmi is missing or not an object"),
            (["--vmi", "{}", "--domain", b"s3cr3t\xff"], "domain is not UTF-8"),
            (["--vmi", "{}", "--cloud-init", "NaN"], "cloudInitData is missing or not an object"),
        ):
            with self.subTest(arguments):
                ended = run([self.program, *arguments])
                self.ends(ended, 1, log=f"fixture: {log}\n")
                self.assertNotIn("s3cr3t", ended.stderr.decode())

    def test_only_the_document_goes_to_stdout(self):
        for code in ("print('x')", "echo('x')", "os.write(1, b'x')"):
            self.ends(self.call(code), 0, b"<domain/>", "printed at import, ")
            self.ends(self.call(code), 0, b"<domain/>", "x")

    def test_a_child_that_comes_back_from_the_hook_says_nothing(self):
        back = "fixture: a forked child process returned from a hook\n"
        for code, output in (
            ("if os.fork(): os.wait()", b"<domain/>"),
            ("if os.fork(): os.wait(); result = '<domain>new</domain>'", b"<domain>new</domain>"),
        ):
            self.ends(self.call(code), 0, output, back)

    def test_log_lines(self):
        ended = self.call("hook.log.warning('w'); hook.log.info('i'); hook.log.debug('d')")
        self.ends(ended, 0, b"<domain/>", "WARNING: w\nINFO: i\n")

    def test_levels_and_fields(self):
        levels = {"SIDECAR_SHIM_STDERR_LEVELS": "1"}
        code = "hook.log.warning('w\\nx', extra={'disk': 'vdc', 'text': 'a b', 'count': 2}); hook.log.error('e')"
        ended = self.call(code, **levels)
        self.ends(ended, 0, b"<domain/>", '<4>w\n<4>x disk=vdc text="a b" count=2\n<3>e\n')
        self.ends(
            self.call(code),
            0,
            b"<domain/>",
            'WARNING: w\nx disk=vdc text="a b" count=2\nERROR: e\n',
        )
        self.ends(
            self.call("raise Refused('no')", **levels), 1, log="printed at import, fixture: no\n"
        )
        ended = self.call("1 / 0", **levels)
        fault = ended.stderr.decode().partition("printed at import, ")[2].splitlines()
        self.assertTrue(len(fault) > 2 and all(line.startswith("<3>") for line in fault), fault)
        self.assertNotIn("division by zero", ended.stderr.decode())
        ended = self.call(
            "hook.log.setLevel('INFO'); import logging; logging.root.setLevel('DEBUG'); 1 / 0",
            **levels,
        )
        self.ends(ended, 1, log="\n<7>ZeroDivisionError: division by zero\n")

    def test_what_a_call_says_of_itself(self):
        code = "c = hook.call; result = f'{c.id} {c.attempt} {c.context} {c.remaining()} {c.cancelled}'"
        self.ends(self.call(code), 0, b"None 1 None None False")
        self.ends(self.call(code, KUBEVIRT_HOOK_CONTEXT="Boot"), 0, b"None 1 Boot None False")

    def test_output_to_a_closed_pipe(self):
        command = [
            self.program,
            "--vmi",
            '{"run": "result = subject * 200_000"}',
            "--domain",
            "<domain/>",
        ]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        process.stdout.close()
        self.assertIn(b"Broken pipe", process.stderr.read())
        process.stderr.close()
        self.assertEqual(process.wait(LIMIT), 1)

    def test_sigterm_stops_it_at_once(self):
        code = json.dumps({"run": "print('begun', flush=True); time.sleep(3600)"})
        command = [self.program, "--vmi", code, "--domain", "<domain/>"]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
        )
        self.assertTrue(any(b"begun" in line for line in process.stderr))
        process.terminate()
        output, _ = process.communicate(timeout=LIMIT)
        self.assertEqual((process.returncode, output), (-signal.SIGTERM, b""))


class BothModes(Argv):
    """Both modes return the same bytes, for any document and locale."""

    DOMAINS = (
        "<domain/>",
        "",
        " \n<domain>\r\n\ttext\r</domain>\n\n ",
        "\ufeff<domain>\u00a0é€😀\u2028\x7f</domain>",
        "<domain>\ufffe\uffff\x01\x1f\\u00e9\"'&amp;</domain>",
    )
    LOCALES = (
        {"LC_ALL": "C.UTF-8"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    )

    def argv(self, vmi, flag, value, **locale):
        arguments = ["--vmi", json.dumps(vmi), flag, value]
        return run(
            [
                self.program,
                *[text if isinstance(text, bytes) else text.encode() for text in arguments],
            ],
            **locale,
        )

    def test_domains(self):
        for code in ("", "result = subject + '<!-- é😀 -->\\n'", "result = ''"):
            for locale in self.LOCALES:
                with Running(FIXTURE, **locale) as worker:
                    for domain in self.DOMAINS:
                        with self.subTest(code, domain=domain, **locale):
                            ended = self.argv({"run": code}, "--domain", domain, **locale)
                            self.assertEqual(ended.returncode, 0, ended.stderr)
                            answer = worker.call({"run": code}, domain)
                            wanted = domain if "unchanged" in answer else answer["domain"]
                            self.assertEqual(ended.stdout, wanted.encode())

    def test_cloud_init_data(self):
        data = ' {"UserData" : "\\u00e9\\ud83d\\ude00 \\u2028", "b": 1.50, "a": [1e3, 12345678901234567890], "half": "\\ud800"}\n'
        for code in ("", "result = subject", "result = {**subject, 'é': 'é\\n'}"):
            for locale in self.LOCALES:
                with self.subTest(code, **locale):
                    ended = self.argv({"run": code}, "--cloud-init", data, **locale)
                    self.assertEqual(ended.returncode, 0, ended.stderr)
                    self.assertEqual(ended.stdout, self.persistent(code, data, locale))

    def persistent(self, code, data, locale):
        """Returns the bytes that the shim reads from a worker's response."""
        vmi = json.dumps({"run": code})
        message = '{"jsonrpc":"2.0","id":1,"method":"preCloudInitIso","params":{"vmi":%s,"cloudInitData":%s}}'
        done = subprocess.run(
            [*PYTHON, FIXTURE],
            input=frame((message % (vmi, data)).encode()),
            capture_output=True,
            timeout=LIMIT,
            check=True,
            env=environment(KUBEVIRT_HOOK_PROTOCOL="1", **locale),
        )
        answer = done.stdout[4:]
        if answer == b'{"jsonrpc":"2.0","id":1,"result":{"unchanged":true}}':
            return data.encode()
        head, tail = b'{"jsonrpc":"2.0","id":1,"result":{"cloudInitData":', b"}}"
        self.assertTrue(answer.startswith(head) and answer.endswith(tail), answer)
        return answer[len(head) : -len(tail)]


if __name__ == "__main__":
    unittest.main()
