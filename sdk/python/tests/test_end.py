"""What a program loses when it ends: nothing. And what the SDK changes of the garbage collector."""

import os
import subprocess
import sys
import tempfile
import unittest

from support import LIMIT, PYTHON, environment, run

# Both environments in which the shim starts programs: of workers, and in exec mode.
OF_SHIM = ({"KUBEVIRT_HOOK_PROTOCOL": "1"}, {"SIDECAR_SHIM_STDERR_LEVELS": "1"})
HOOK = """
hook = Worker("ending")

@hook.on_define_domain
def keep(vmi, domain):
    pass
"""
ARGUMENTS = ["--vmi", "{}", "--domain", "<domain/>"]


class Programs(unittest.TestCase):
    def setUp(self):
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name

    def path(self, name):
        return os.path.join(self.directory, name)

    def end(self, code, more, *, flags=()):
        """Runs a program until it ends: as a worker, whose stdin is closed, or for one call."""
        with open(self.path("hook.py"), "w", encoding="utf-8") as file:
            file.write(code)
        return subprocess.run(
            [*PYTHON, *flags, "hook.py", *ARGUMENTS],
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT,
            env=environment(**more),
            check=False,
        )

    def check(self, before, code, *, status=0, log="", files=None, flags=()):
        """Checks the end of a program that runs `before`, imports the SDK, and runs `code`."""
        for more in OF_SHIM:
            with self.subTest(more):
                program = f"{before}\nfrom kubevirt_hook import Worker\n{HOOK}\n{code}"
                ended = self.end(program, more, flags=flags)
                self.assertEqual(ended.returncode, status, ended.stderr.decode())
                self.assertIn(log, ended.stderr.decode())
                for name, content in (files or {}).items():
                    with open(self.path(name), encoding="utf-8") as file:
                        self.assertEqual(file.read(), content, name)
                    os.remove(self.path(name))


class End(Programs):
    def test_atexit_handlers_run_whoever_registered_them(self):
        before = "import atexit, sys\natexit.register(lambda: print('first', file=sys.stderr))"
        code = (
            "atexit.register(lambda: print('second', file=sys.stderr))\n"
            "try: hook.run()\n"
            "finally: atexit.register(lambda: print('third', file=sys.stderr))"
        )
        self.check(before, code, log="third\nsecond\nfirst\n")

    def test_threads_are_waited_for(self):
        code = (
            "ended = threading.Event()\n"
            "def write():\n"
            "    ended.wait()\n"
            "    open('written', 'w').write('by a thread')\n"
            "threading.Thread(target=write).start()\n"
            "try: hook.run()\n"
            "finally: ended.set()"
        )
        self.check("import threading", code, files={"written": "by a thread"})

    def test_open_files_are_flushed(self):
        kept = (
            "class Kept{0}:\n"
            "    log = open('class{0}', 'w')\n"
            "    log.write('of a class')\n"
            "    def __init__(self):\n"
            "        self.myself, self.log = self, open('cycle{0}', 'w')\n"
            "        self.log.write('of a cycle')\n"
            "kept{0} = Kept{0}()\n"
            "module{0} = open('module{0}', 'w')\n"
            "module{0}.write('of a module')\n"
            "import os\n"
            "class Fd{0}: stderr = os.fdopen(os.dup(2), 'w')\n"
            "Fd{0}.stderr.write('to stderr{0}')\n"
        )
        files = {"class": "of a class", "cycle": "of a cycle", "module": "of a module"}
        for before, code, number in ((kept, "", 1), ("", kept, 2)):
            self.check(
                before.format(number),
                f"{code.format(number)}\nhook.run()",
                files={f"{name}{number}": content for name, content in files.items()},
                log=f"to stderr{number}",
            )
        # The file object does not own the descriptor.
        code = "class Kept: log = open(2, 'w', closefd=False)\nKept.log.write('kept')\nhook.run()"
        self.check("", code, log="kept")

    def test_what_the_hook_creates_is_finalized(self):
        code = (
            "class Kept:\n"
            "    def __init__(self): self.myself = self\n"
            "    def __del__(self): os.write(2, b'finalized')\n"
            "kept = Kept()\n"
            "hook.run()"
        )
        self.check("import os", code, log="finalized")

    def test_logging_is_shut_down(self):
        code = (
            "file = logging.FileHandler('log')\n"
            "memory = logging.handlers.MemoryHandler(100, target=file)\n"
            "logging.getLogger().addHandler(memory)\n"
            "logging.getLogger().error('kept')\n"
            "hook.run()"
        )
        self.check("import logging.handlers", code, files={"log": "kept\n"})

    def test_the_program_chooses_its_status(self):
        for code, status, log in (
            ("hook.run()", 0, ""),
            ("try: hook.run()\nfinally: sys.exit(7)", 7, ""),
            ("try: hook.run()\nexcept SystemExit: pass\nsys.exit(8)", 8, ""),
            (
                "try: hook.run()\nexcept SystemExit as end: kept = end\nsys.exit(kept.code + 9)",
                9,
                "",
            ),
            ("try: hook.run()\nexcept SystemExit: pass\nraise KeyError('after')", 1, "after"),
            ("try: hook.run()\nexcept SystemExit: print('goes on')", 0, "goes on"),
        ):
            with self.subTest(code):
                self.check("import sys", code, status=status, log=log)

    def test_a_program_that_never_calls_run_says_so(self):
        said = "ending: the program has ended before run() was called\n"
        for code in ("", "hook.run", "if __name__ == 'main': hook.run()", "sys.exit(3)"):
            with self.subTest(code):
                self.check("import sys", code, status=3 if "exit" in code else 0, log=said)

    def test_programs_that_need_not_call_run_say_nothing(self):
        program = f"import sys\nfrom kubevirt_hook import Worker\n{HOOK}\n"
        spawned = (
            "import multiprocessing\n"
            "if __name__ == '__main__':\n"
            "    child = multiprocessing.get_context('spawn').Process(target=print)\n"
            "    child.start(); child.join(); hook.run()"
        )
        for code, more in (
            *((code, more) for code in ("hook.run()", "1 / 0", spawned) for more in OF_SHIM),
            ("Worker('other').on_node('preVMStart')(keep); hook.run()", OF_SHIM[0]),
            ("", {}),  # such as a test
        ):
            with self.subTest(code, **more):
                self.assertNotIn("run()", self.end(program + code, more).stderr.decode())
        idle = "from kubevirt_hook import Worker\nWorker('idle')"
        self.assertEqual(self.end(idle, OF_SHIM[0]).stderr, b"", "it has no hooks")

    def test_tools_that_run_the_program_write_their_data(self):
        flags = ("-m", "cProfile", "-o", "profile")
        for more in OF_SHIM:
            ended = self.end(
                f"from kubevirt_hook import Worker\n{HOOK}\nhook.run()", more, flags=flags
            )
            self.assertEqual(ended.returncode, 0, ended.stderr.decode())
            self.assertGreater(os.path.getsize(self.path("profile")), 0)
            os.remove(self.path("profile"))


class Collector(Programs):
    SHOW = "print(gc.isenabled(), gc.get_freeze_count() > 1000)"

    def shows(self, program, more):
        # The program writes to stdout before `run`, or never calls it.
        ended = run([sys.executable, "-S", "-c", program], **more)
        self.assertEqual(ended.returncode, 0, ended.stderr.decode())
        return ended.stdout.decode().strip()

    def test_it_leaves_alone_what_a_hook_has_imported(self):
        for more in OF_SHIM:
            self.assertEqual(
                self.shows(f"import kubevirt_hook, gc; {self.SHOW}", more), "True True"
            )

    def test_other_programs_keep_theirs(self):
        self.assertEqual(self.shows(f"import kubevirt_hook, gc; {self.SHOW}", {}), "True False")

    def test_a_program_that_has_turned_it_off_keeps_it_off(self):
        program = f"import gc; gc.disable(); import kubevirt_hook; {self.SHOW}"
        for more in (*OF_SHIM, {}):
            self.assertTrue(self.shows(program, more).startswith("False "))

    def test_open_files_keep_it_as_it_was(self):
        program = f"file = open('/dev/null', 'w'); import kubevirt_hook, gc; {self.SHOW}"
        inherited = (
            f"import os; os.set_inheritable(os.dup(2), True); import kubevirt_hook, gc; {self.SHOW}"
        )
        for more in OF_SHIM:
            self.assertEqual(self.shows(program, more), "True False")
            self.assertEqual(self.shows(inherited, more), "True True", "what the shim left open")

    def test_the_end_is_short_unless_something_is_open(self):
        # This handler runs after that of the SDK.
        before = (
            "import atexit, gc, os, sys\n"
            "atexit.register(lambda: print('short:', gc.get_freeze_count() > 1000, file=sys.stderr))"
        )
        for code, is_short in (
            ("hook.run()", True),
            # As a library may have it, whose objects write when they are deleted.
            ("opened = os.open(os.devnull, os.O_RDONLY)\nhook.run()", False),
            ("try: hook.run()\nfinally: file = open(2, 'w', closefd=False)", False),
        ):
            with self.subTest(code):
                self.check(before, code, log=f"short: {is_short}\n")

    def test_it_collects_what_hooks_leave(self):
        code = (
            "import gc, weakref\n"
            "class Kept: pass\n"
            "kept = Kept(); kept.myself = kept; seen = weakref.ref(kept); del kept\n"
            "gc.collect()\n"
            "import sys; print(seen() is None, file=sys.stderr)\n"
            "hook.run()"
        )
        self.check("", code, log="True\n")


if __name__ == "__main__":
    unittest.main()
