"""Checks the prose of Markdown pages: words that readers stumble over, long sentences, the spelling of statuses.

Code blocks and code spans are left out. A line that ends with `<!-- prose: ok REASON -->` is not checked. Each rule has
an example that it must find and one that it must not, which are tried first: a rule that finds nothing is an error.
"""

import re
import sys
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt

# Longer sentences have to be read twice.
MAX_WORDS = 25
# Clauses that begin with one of these words.
MAX_RELATIVES = 2
RELATIVE = re.compile(r"\b(which|who|whose|whom|that|where)\b", re.IGNORECASE)

# What stands for a code span: one word, which no rule looks for.
CODE = "Cx"

STATUSES = (
    "CANCELLED|UNKNOWN|INVALID_ARGUMENT|DEADLINE_EXCEEDED|NOT_FOUND|ALREADY_EXISTS|PERMISSION_DENIED|RESOURCE_EXHAUSTED"
    "|FAILED_PRECONDITION|ABORTED|OUT_OF_RANGE|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS|UNAUTHENTICATED"
)
# Other spellings of those with several words.
CAMEL = "|".join(name.title().replace("_", "") for name in STATUSES.split("|") if "_" in name)
SNAKE = "|".join(name.lower() for name in STATUSES.split("|") if "_" in name)


class Rule(NamedTuple):
    """A pattern, what to write instead, and a sentence with and without it."""

    pattern: str
    advice: str
    bad: str
    good: str


RULES = [
    Rule(
        r"\b(nobody|no one|somebody|anybody|whoever|whatever)\b",
        "name the actor or the thing: the caller, the worker, any length",
        "Nobody waits for it.",
        "The caller has gone.",
    ),
    Rule(
        r"\btold\b|\btells? (of|that|what|whether|which)\b",
        "reports, logs, returns, shows",
        "The owner is told which hook failed.",
        "The owner sees which hook failed.",
    ),
    Rule(
        r"\b(is|are|was|were|be|been) ended\b|\bends? (it|them|a|the)\b",
        "exits, is stopped, is killed, finishes",
        "The shim ends the worker.",
        "The shim stops the worker.",
    ),
    Rule(
        r"\b(lest|in vain|anew|owed|were it|all the same|by the way|besides)\b",
        "plain words: or, again, in addition",
        "It reads the file anew.",
        "It reads the file again.",
    ),
    Rule(r"\bin (its|the|their) midst\b", "during, inside", "It stops in its midst.", "It stops inside."),
    Rule(r"\bso many\b", "up to N, this many", "After so many calls it stops.", "After this many calls it stops."),
    Rule(r"\bof (its|their|his|your|our) own\b", "its own X, a separate X", "A process of its own.", "Its own process."),
    Rule(
        r"(?<!there )\b(is|are|was|were) no (?!longer\b|more\b|less\b|fewer\b)",
        "is not a X, has no X",
        "A name is no document.",
        "There is no limit. It is no longer there.",
    ),
    Rule(r"\bstandard[ -](error|input|output)\b", "stderr, stdin, stdout", "It writes to standard error.", "It writes to stderr."),
    Rule(r"\bend[- ]of[- ]file\b", "EOF", "It waits for end-of-file.", "It waits for EOF."),
    Rule(
        r"\b(try|tries|tried|trying) (it )?(again|once more|anew)\b|\bone more try\b",
        "retry",
        "KubeVirt tries again.",
        "KubeVirt retries.",
    ),
    Rule(
        r"\banswer(s|ing)?\b",
        "respond, reply, return; response, result",
        "The worker answers the call.",
        "The worker responds to the call.",
    ),
    Rule(r"\bmembers?\b", "field", "Unknown members are ignored.", "Unknown fields are ignored."),
    Rule(r"\bstands?\b(?! for\b|-in\b)", "is, appears", "The reason stands in the log.", "X stands for a name, a stand-in."),
    Rule(
        r"\bwhich (is|are|was|were|has|have)\b|\bthat (has|have)\b|\bthat (is|are|was|were) \w+ed\b",
        "cut the clause, or use an adjective, with or for",
        "A worker that has a limit stops.",
        "A worker with a limit stops.",
    ),
    Rule(
        r"^(Not )?\w+(ed|[^e]en|ept|eft|own) (is|are|was|were)\b|^(In|On|At|Behind|Below) [^,]* (lies?|stands?|comes?)\b",
        "put the subject first",
        "Needed are two files.",
        "Two files are needed.",
    ),
    Rule(
        rf"\b({STATUSES.replace('UNKNOWN|', '').replace('INTERNAL|', '')})\b",
        "write a status as code",
        "The call fails with DEADLINE_EXCEEDED.",
        "The call fails with `DEADLINE_EXCEEDED`.",
    ),
]
# Rules for code spans too.
CODE_RULES = [
    Rule(
        rf"^({CAMEL}|{SNAKE})$",
        "spell a status like DEADLINE_EXCEEDED",
        "It fails with `DeadlineExceeded`.",
        "It fails with `DEADLINE_EXCEEDED`.",
    ),
]
CASE_MATTERS = {RULES[-1], RULES[-2]} | set(CODE_RULES)

PARSER = MarkdownIt("commonmark").enable("table")


def blocks(page):
    """Yields the line, the text and the code spans of each block of prose."""
    lines = page.splitlines()
    for token in PARSER.parse(page):
        if token.type != "inline":
            continue
        first, last = token.map
        if any("prose: ok" in line for line in lines[first:last]):
            continue
        text, spans = "", []
        for part in token.children:
            if part.type == "text":
                text += part.content
            elif part.type == "code_inline":
                text += CODE
                spans.append(part.content)
            elif part.type in ("softbreak", "hardbreak"):
                text += "\n"
        yield first + 1, text, spans


def found(rule, text):
    """Returns the first match of a rule."""
    return re.search(rule.pattern, text, 0 if rule in CASE_MATTERS else re.IGNORECASE)


def faults(page):
    """Yields the line and the description of each fault of a page."""
    for line, text, spans in blocks(page):
        for span in spans:
            yield from ((line, f"`{span}`: {rule.advice}") for rule in CODE_RULES if found(rule, span))
        at = line
        for sentence in re.split(r"(?<=[.!?])[\"')]*\s+", text):
            flat = " ".join(sentence.split())
            for rule in RULES:
                if match := found(rule, flat):
                    yield at, f"“{match[0]}”: {rule.advice}"
            words = len(re.findall(r"[\w'’-]+", flat))
            if words > MAX_WORDS:
                yield at, f"a sentence of {words} words ({MAX_WORDS} are allowed): {flat[:60]}…"
            relatives = len(RELATIVE.findall(flat))
            if relatives > MAX_RELATIVES:
                yield at, f"{relatives} relative clauses in a sentence: {flat[:60]}…"
            at = line + text[: text.find(sentence) + len(sentence)].count("\n")


def try_rules():
    """Exits with an error if a rule misses its example, or finds something in the good one."""
    wordy = "It " + "very " * MAX_WORDS + "long."
    relative = "A file that a hook writes, which the caller reads, whose length is known."
    examples = [(rule.bad, rule.advice, rule.good) for rule in RULES + CODE_RULES]
    examples += [(wordy, "words", "It is short."), (relative, "relative clauses", "A file.")]
    for bad, advice, good in examples:
        if not any(advice in fault for _, fault in faults(bad)):
            sys.exit(f"the rule “{advice}” does not find: {bad}")
        if any(advice in fault for _, fault in faults(good)):
            sys.exit(f"the rule “{advice}” finds something in: {good}")
        for code in (f"```text\n{bad}\n```", f"`{bad.replace('`', '')}`"):
            if list(faults(code)):
                sys.exit(f"code is not left out: {code}")


def main():
    """Checks the pages that the command line names."""
    try_rules()
    count = 0
    for page in sys.argv[1:]:
        for line, fault in faults(Path(page).read_text(encoding="utf-8")):
            print(f"{page}:{line}: {fault}")
            count += 1
    if count:
        sys.exit(f"{count} faults: write these sentences in other words")
    print(f"{len(sys.argv) - 1} pages are plain")


main()
