"""Compares the shim's verdicts on broken domains with those of libxml2 and Go's encoding/xml.

Arguments: the program of verdicts.rs, and that of judge.go if there is Go. The environment may set
XML_DOCUMENTS (the number of mutated documents, default 100000) and XML_SEED.

- Nothing may be accepted here that a judge refuses.
- What both judges accept is refused only for the reasons in STRICTER, which src/hook/xml/mod.rs
  explains.
- Each character beyond ASCII up to U+10FFF is in a name exactly if both judges allow it.
"""

import collections
import concurrent.futures
import os
import pathlib
import random
import re
import struct
import subprocess
import sys

from lxml import etree

from mutations import mutated

ROOT = pathlib.Path(__file__).resolve().parents[2]

BATCH = 5000  # documents: enough to start few processes, and little memory

# The faults of documents that both judges accept.
STRICTER = re.compile(
    "its root element is `|it has a document type|nested more than 255 deep|more than 1000 attributes|"
    "where 64 others are|"
    "has an `xml:id`|duplicate attribute `xmlns:xml`|namespace that is not a valid URI|"
    "or its part behind a colon, begins with U\\+"
)

Verdicts = list[str]  # for each document, a fault, or nothing


def libxml2(documents: list[bytes]) -> Verdicts:
    verdicts = []
    for document in documents:
        parser = etree.XMLParser(resolve_entities=False, no_network=True)
        try:
            etree.fromstring(document, parser)
            # An error of namespaces raises nothing if a warning follows it.
            verdicts.append(", ".join(entry.message for entry in parser.error_log.filter_from_errors()))
        except etree.XMLSyntaxError as fault:
            verdicts.append(str(fault) or "refused")
    return verdicts


def program(path: str, documents: list[bytes]) -> Verdicts:
    stream = b"".join(struct.pack(">I", len(document)) + document for document in documents)
    done = subprocess.run([path], input=stream, stdout=subprocess.PIPE, check=True)
    lines = done.stdout.decode().split("\n")
    if len(lines) != len(documents) + 1:
        sys.exit(f"{path} printed {len(lines)} lines for {len(documents)} documents")
    return lines[:-1]


class Comparison:
    """Counts verdicts, and keeps the documents on which they differ in the wrong way."""

    def __init__(self, paths: list[str]):
        self.paths = paths
        self.accepted = 0
        self.refused_by = collections.Counter()
        self.stricter = collections.Counter()
        self.wrong: list[str] = []

    def judge(self, documents: list[bytes]) -> None:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            programs = [pool.submit(program, path, documents) for path in self.paths]
            judges = {"libxml2": libxml2(documents)}
            ours = programs[0].result()
            judges.update(("encoding/xml", it.result()) for it in programs[1:])
        for name, verdicts in judges.items():
            self.refused_by[name] += sum(bool(verdict) for verdict in verdicts)
        for document, fault, *others in zip(documents, ours, *judges.values(), strict=True):
            self.accepted += not fault
            if not fault and any(others):
                self.wrong.append(f"accepted here, but not there ({others}): {document!r}")
            elif fault and not any(others):
                reason = STRICTER.search(fault)
                # Without Go, its reasons are unknown.
                if reason:
                    self.stricter[reason[0]] += 1
                elif len(self.paths) > 1:
                    self.wrong.append(f"refused here ({fault}), but not there: {document!r}")

    def finish(self, what: str, count: int) -> None:
        for text in self.wrong[:10]:
            print(text[:3000], file=sys.stderr)
        if self.wrong:
            sys.exit(f"xml: FAILED: {len(self.wrong)} of {count} {what} are judged otherwise")
        others = ", ".join(f"{name} refuses {number}" for name, number in self.refused_by.items())
        print(f"xml: {count} {what}: {self.accepted} accepted here, none of them refused there ({others})")
        for reason, number in self.stricter.most_common():
            print(f"xml: refused here alone: {number} ({reason})")


def batches(documents):
    batch = []
    for document in documents:
        batch.append(document)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch


def names():
    for code in (*range(0x80, 0xD800), *range(0xE000, 0x11000)):
        yield f"<domain><{chr(code)}/></domain>".encode()
        yield f"<domain><a{chr(code)}/></domain>".encode()


def main(paths: list[str]) -> None:
    count, seed = int(os.environ.get("XML_DOCUMENTS", "100000")), os.environ.get("XML_SEED", "0")
    bases = [
        (ROOT / file).read_bytes()
        for file in ("crates/hookctl/src/samples/domain.xml", "tests/fixtures/domains/libvirt.xml")
    ]
    chance = random.Random(seed)
    runs = [("mutated domains", (mutated(chance, bases) for _ in range(count)))]
    if len(paths) > 1:
        runs.append(("names", names()))
    for what, documents in runs:
        comparison, seen = Comparison(paths), 0
        for batch in batches(documents):
            comparison.judge(batch)
            seen += len(batch)
        comparison.finish(what, seen)
        if not comparison.accepted or comparison.accepted > 0.6 * seen:
            sys.exit(f"xml: FAILED: {comparison.accepted} of {seen} {what} are accepted, which proves little")


if __name__ == "__main__":
    main(sys.argv[1:])
