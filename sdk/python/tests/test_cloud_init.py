"""Parts in cloud-init user data, with the same results as in the SDKs for Go and Rust. `.ci/cloud-init`
lets cloud-init itself read those results."""

import email
import json
import random
import sys
import unittest

from support import PYTHON, ROOT, SDK, run

sys.path.insert(0, str(SDK))
from kubevirt_cloud_init import put_part
from kubevirt_hook import Refused

VECTORS = ROOT / "sdk" / "vectors" / "cloud-init.json"


def text(value):
    return "\n".join(value) if isinstance(value, list) else value


class Vectors(unittest.TestCase):
    def put(self, user_data, parts):
        for part in parts:
            options = {"replace": part["replace"]} if "replace" in part else {}
            user_data = put_part(user_data, part["name"], text(part["content"]), **options)
        return user_data

    def test_all(self):
        cases = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]
        self.assertGreater(len(cases), 80)
        for case in cases:
            with self.subTest(case["about"]):
                user_data, parts = text(case["user_data"]), case["parts"]
                if "error" in case:
                    error = {"refused": Refused, "part": ValueError}[case["error"]]
                    with self.assertRaises(error) as caught:
                        self.put(user_data, parts)
                    self.assertEqual(str(caught.exception), case["says"])
                else:
                    result = self.put(user_data, parts)
                    self.assertEqual(result, text(case["expect"]))
                    self.assertEqual(self.put(result, parts), result, "the second time")

    def test_the_example_of_the_page(self):
        page = (ROOT / "docs" / "cloud-init.md").read_text(encoding="utf-8")
        cases = json.loads(VECTORS.read_text(encoding="utf-8"))["cases"]
        (case,) = [case for case in cases if case["about"] == "the example of docs/cloud-init.md"]
        self.assertIn(f"```yaml\n{text(case['expect'])}```\n", page)


class Parts(unittest.TestCase):
    def test_no_user_data(self):
        part = ("a", "#!/bin/sh\n")
        self.assertEqual(put_part(None, *part), put_part("", *part))

    def test_an_independent_parser_finds_what_was_put_in(self):
        pieces = [
            "==sidecar-shim-0==", "--==sidecar-shim-0==\n", "\n--==sidecar-shim-1==--\n", "--", "==",
            "Content-Type: text/plain", "From x\n", ":", "\n", "\n\n", "\t", " ", "é", "€", "\U0001f600",
            "\r", "\r\n", "\0", "\x7f", "=3D", "\\u0041", "x" * 1000, ".\n", "\u2028", "\x85", "\x0c",
        ]  # fmt: skip
        for seed in range(300):
            with self.subTest(seed=seed):
                chance = random.Random(seed)
                texts = [
                    "#!" + "".join(chance.choices(pieces, k=chance.randrange(30))) for _ in range(4)
                ]
                user_data = texts[0]
                for index in chance.sample([1, 2, 3, 1, 2, 3], 6):
                    user_data = put_part(user_data, f"name-{index}", "#!old")
                    user_data = put_part(user_data, f"name-{index}", texts[index])
                owner, *parts = email.message_from_string(user_data).get_payload()
                self.assertIsNone(owner.get_filename())
                self.assertEqual(decoded(owner), texts[0])
                self.assertEqual(
                    {part.get_filename(): decoded(part) for part in parts},
                    {f"name-{index}": texts[index] for index in (1, 2, 3)},
                )

    def test_many_boundaries_in_the_user_data_take_no_more_time_than_others(self):
        # A search of the whole text for each number would take minutes.
        marks = "".join(f"==sidecar-shim-{number}==" for number in range(60_000))
        user_data = put_part(f"#!{marks}", "a", "#!")
        self.assertIn('boundary="==sidecar-shim-60000=="', user_data.partition("\n")[0])

    def test_import_loads_nothing_else(self):
        program = (
            "import sys, kubevirt_hook; before = set(sys.modules); import kubevirt_cloud_init as module\n"
            "assert module.put_part('#cloud-config\\n', 'a', '#!\\n')\n"
            "print(*sorted(set(sys.modules) - before))"
        )
        done = run([*PYTHON, "-c", program])
        self.assertEqual(done.stderr, b"")
        self.assertEqual(done.stdout.split(), [b"kubevirt_cloud_init"])


def decoded(part):
    return part.get_payload(decode=True).decode()


if __name__ == "__main__":
    unittest.main()
