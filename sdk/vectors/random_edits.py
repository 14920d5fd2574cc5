#!/usr/bin/env python3
"""Compares an SDK's editor with lxml, on random documents and edits.

    random_edits.py [--cases N] [--seed S] [--judge PROGRAM] [--like PROGRAM]… -- RUNNER [ARGUMENT…]

RUNNER is a program of the SDK. It reads cases from stdin, one JSON object per line, until EOF:

    {"document": "<a/>", "namespaces": {"app": "urn:app"}, "steps": [{"do": "set", "on": "root", …}]}

They are cases of xml.json without `expect`: a document as one string, and steps that all succeed; README.md
describes the fields. `as`, `is` and `are` hold what lxml finds; the runner has to compare them with what it finds, as
the SDK's test of xml.json does. For each case it prints one line of JSON, in the same order:

    {"document": "<a b=\\"1\\"/>"}         the document afterwards
    {"error": "step 3: \\"2\\", not \\"1\\""}  if a step fails or finds something else

Of each document afterwards this script demands:

- it is well-formed for libxml2 and, with --judge, for a program like tests/xml/judge.go;
- it has the same meaning as the tree that lxml has after the same edits;
- every piece of the first document that no step has edited is still there, byte for byte and in its order, and only
  what the steps ask for is new. A piece is a name, an attribute, the end of a tag, a text, a comment, …
- it is the same, to the byte, as that of each runner of another language that --like names.

And of as many documents with faults, that it accepts exactly those that libxml2 accepts, apart from undeclared prefixes.

The exit status is 0 if all is well. Otherwise the first case that fails is printed. It needs lxml, from PyPI.
"""

import argparse
import json
import random
import re
import subprocess
import sys
import threading

from lxml import etree

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
XML = "http://www.w3.org/XML/1998/namespace"
APP, OTHER = "https://example.com/app", "urn:other"
TABLE = {"": "", "qemu": QEMU, "xml": XML, "app": APP}
CHARACTERS = {"&": "&amp;", "<": "&lt;"}

# ---- documents: well-formed, with unusual but valid syntax ----

NAMES = ("a", "a", "b", "b", "c", "ab", "é")
PREFIXES = ("q", "qemu", "app", "p", "o")
TEXTS = ("", "", "\n  ", "\n\t", " ", "t", " > ", "&lt;", "&#65;\n", "\r\n", "]] >", "€", "/>", '="', "x='y'")
# Texts that must not come together as they are.
BRACKETS = ("]]", "]", ">", ">", "")
VALUES = ("", "1", "2", "1", "2", ">", "/>", " a ", "&quot;&amp;", "&#10;", "=", "ß", "xmlns")
OTHERS = ("<!-- <b> -->", "<!-->-->", "<!---->", "<![CDATA[<b>]]>", "<![CDATA[ ]]>", "<?p <b>?>", "<?p?>", "<!--\n\"'>-->")


class Documents:
    """Generates documents. `plain` ones are laid out as KubeVirt and libvirt do."""

    def __init__(self, chance):
        self.chance, self.plain = chance, chance.random() < 0.4
        self.texts = BRACKETS if chance.random() < 0.1 else TEXTS

    def document(self):
        chance = self.chance
        if self.plain:
            return self.element(0, {"xml": XML}, chance.choice(("\n", "\n", "\r\n", ""))) + chance.choice(("", "\n"))
        before = chance.choice(("", "", "<?xml version='1.0'?>", "<!-- <a> -->\n", " \n"))
        return before + self.element(0, {"xml": XML}, "") + chance.choice(("", "\n", "<!--<a/>-->", "<?p >?>\n"))

    def element(self, depth, scope, line):
        """Returns an element. `scope` has the namespaces of the prefixes; `line` is the line break before it."""
        chance = self.chance
        scope, declared = dict(scope), []
        if chance.random() < (0.4 if depth == 0 else 0.1):
            for prefix in chance.sample(("", *PREFIXES), chance.choice((1, 1, 2))):
                uri = chance.choice((QEMU, APP, OTHER) if prefix else ("", QEMU, APP, OTHER))
                scope[prefix] = uri
                declared.append((f"xmlns:{prefix}" if prefix else "xmlns", uri))
        known = [prefix for prefix in scope if prefix]
        name = self.name(known)
        chosen, seen = [], set()
        for _ in range(chance.choice((0, 0, 1, 1, 2, 4))):
            attribute = self.name(known, ("a", "b", "k", "long-name.x"))
            prefix, _, local = attribute.rpartition(":")
            key = (scope[prefix] if prefix else "", local)
            if key not in seen:
                seen.add(key)
                chosen.append((attribute, chance.choice(VALUES)))
        attributes = declared + chosen
        chance.shuffle(attributes)
        mark = chance.choice("\"'")
        space = " " if self.plain else chance.choice((" ", "\n\t"))
        equals = "=" if self.plain else chance.choice(("=", "=", " = "))
        end = "" if self.plain else chance.choice(("", "", " ", "\r\n"))
        tag = space.join([name, *(f"{it}{equals}{self.quoted(value, mark)}" for it, value in attributes)])
        if chance.random() < 0.2:
            return f"<{tag}{end}/>"
        return f"<{tag}{end}>{self.inside(depth, scope, line)}</{name}{end if chance.random() < 0.3 else ''}>"

    def inside(self, depth, scope, line):
        chance = self.chance
        count = chance.randrange((6, 5, 4, 2, 1)[depth] if depth < 5 else 1)
        if self.plain:
            inner = line + "  " if line else ""
            children = [inner + self.element(depth + 1, scope, inner) for _ in range(count)]
            return "".join(children) + (line if children else chance.choice(("", "", "text")))
        parts = []
        for _ in range(count):
            parts.append(chance.choice(self.texts))
            kind = chance.random()
            parts.append(self.element(depth + 1, scope, "") if kind < 0.8 else chance.choice(OTHERS))
        return "".join(parts) + chance.choice(self.texts)

    def name(self, prefixes, names=NAMES):
        chance = self.chance
        name = chance.choice(names)
        return f"{chance.choice(prefixes)}:{name}" if prefixes and chance.random() < 0.4 else name

    def quoted(self, value, mark):
        mark = mark if self.plain else self.chance.choice("\"'")
        return f"{mark}{value}{mark}"


# ---- pieces: what a document consists of ----

PIECE = re.compile(
    r"""<!--.*?-->|<!\[CDATA\[.*?\]\]>|<\?.*?\?>  # other markup
      |</[^>]*>|<[^\s/>]+                         # an end tag; a start tag up to its name
      |[^<]+""",
    re.DOTALL | re.VERBOSE,
)
INSIDE_TAG = re.compile(r"""(\s*[^\s=/>]+\s*=\s*(?:"[^"]*"|'[^']*'))|(\s*/?>)""", re.DOTALL)


def pieces(text):
    """Cuts a document into pieces: pairs of a kind (`start`, `attribute`, `tag end`, `end`, `text`, `other`) and the bytes."""
    found, at = [], 0
    while at < len(text):
        piece = PIECE.match(text, at)
        at, token = piece.end(), piece[0]
        if token.startswith(("<!", "<?")):
            found.append(("other", token))
        elif token.startswith("</"):
            found.append(("end", token))
        elif token.startswith("<"):
            found.append(("start", token))
            kind = None
            while kind != "tag end":
                part = INSIDE_TAG.match(text, at)
                at, kind = part.end(), "attribute" if part[1] else "tag end"
                found.append((kind, part[0]))
        else:
            found.append(("text", token))
    return found


class Parts:
    """The pieces of one element of the first document, as positions in the list of all pieces."""

    def __init__(self):
        self.before = self.start = self.tag_end = self.end = None
        self.attributes, self.texts = {}, []


def parts_of(all_pieces):
    """Returns the parts of each element, in the order of the document."""
    found, opened = [], []
    for at, (kind, token) in enumerate(all_pieces):
        if kind == "start":
            new = Parts()
            new.start = at
            if at and all_pieces[at - 1][0] == "text":
                new.before = at - 1
            found.append(new)
            opened.append(new)
        elif kind == "attribute":
            opened[-1].attributes[token.split("=")[0].strip()] = at
        elif kind == "tag end":
            opened[-1].tag_end = at
            if token.endswith("/>"):
                opened.pop()
        elif kind == "end":
            opened.pop().end = at
        elif kind == "text" and opened:
            opened[-1].texts.append(at)
    return found


# ---- the model: the same edits with lxml ----


class Model:
    """A document in lxml, and which pieces of its text the edits may change."""

    def __init__(self, text):
        self.root = etree.fromstring(text.encode(), etree.XMLParser(strip_cdata=False, remove_blank_text=False))
        self.pieces = pieces(text)
        self.elements = list(self.root.iter(etree.Element))  # kept alive, so that each stays the same object
        self.parts = dict(zip(self.elements, parts_of(self.pieces)))
        assert len(self.parts) == len(self.elements) == sum(kind == "start" for kind, _ in self.pieces)
        self.edited = set()  # positions of pieces that need not be there any more
        self.new = 0  # how many pieces may be new, white space and declarations apart
        self.loose = set()  # elements with children that came or went: the white space between them may differ
        self.written = {}  # attributes in their written form, by element and expanded name
        for element, parts in self.parts.items():
            for name, at in parts.attributes.items():
                if name != "xmlns" and not name.startswith("xmlns:"):
                    self.written[element, self.expanded(element, name)] = at

    @staticmethod
    def expanded(element, name):
        prefix, _, local = name.rpartition(":")
        uri = XML if prefix == "xml" else element.nsmap[prefix] if prefix else ""
        return f"{{{uri}}}{local}" if uri else local

    def is_attached(self, element):
        return element is self.root or any(it is self.root for it in element.iterancestors())

    def edit(self, *positions):
        """These pieces may be gone, and as many may be new."""
        for at in positions:
            if at is not None and at not in self.edited:
                self.edited.add(at)
                self.new += 1

    def edit_all(self, element):
        """All of an element goes."""
        parts = self.parts.get(element)
        if parts:
            self.edited.update(range(parts.start, (parts.end or parts.tag_end) + 1))

    # -- operations, on elements whose names are expanded

    def matches(self, element, name, predicates):
        return (name == "*" or element.tag == name) and all(element.get(key) == value for key, value in predicates)

    def find_all(self, element, steps):
        """Returns the matches in the order of the document."""
        if not steps:
            return [element]
        children = [it for it in element.iterchildren(etree.Element) if self.matches(it, *steps[0])]
        return [found for child in children for found in self.find_all(child, steps[1:])]

    def append(self, element, step):
        last = [*element.iterchildren(etree.Element)][-1:]
        new = self.created(element, step)
        if last:
            tail, last[0].tail = last[0].tail, None
            last[0].addnext(new)
            new.tail = tail
        elif len(element) or (element.text or "").strip(" \t\r\n"):
            element.append(new)
        else:
            text, element.text = element.text, None
            element.append(new)
            new.tail = text
        self.open(element)
        return new

    def insert_before(self, element, step):
        new = self.created(element.getparent(), step)
        if element.getparent() is not None:  # beside a removed element is nothing
            element.addprevious(new)
        return new

    def created(self, parent, step):
        self.loose.add(parent)
        self.new += 3 + len(step[1])  # name, attributes, the end of the tag, the end tag
        new = etree.Element(step[0])
        for key, value in step[1]:
            new.set(key, value)
        self.elements.append(new)
        return new

    def open(self, element):
        """<a/> may have become <a></a>."""
        parts = self.parts.get(element)
        if parts and parts.end is None:
            self.edit(parts.tag_end)
            self.new += 1

    def remove(self, element):
        parent = element.getparent()
        self.loose.add(parent)
        before, tail = element.getprevious(), element.tail or ""
        if element in self.parts:
            spaces = [self.parts[element].before]
        else:  # the white space before it may be any of the parent's
            spaces = self.parts[parent].texts if parent in self.parts else []
        self.edited.update(at for at in spaces if at is not None and not self.pieces[at][1].strip(" \t\r\n"))
        self.edit_all(element)
        element.tail = None
        parent.remove(element)
        if before is None:
            parent.text = (parent.text or "") + tail
        else:
            before.tail = (before.tail or "") + tail

    def set(self, element, name, value):
        if element.get(name) != value:
            self.edit(self.written.get((element, name)))
            self.new += 1
        element.set(name, value)

    def remove_attribute(self, element, name):
        if name in element.attrib:
            at = self.written.pop((element, name), None)
            if at is not None:
                self.edited.add(at)
            del element.attrib[name]

    def set_text(self, element, text):
        if not len(element) and (element.text or "") == text:
            return
        self.new += 1
        parts = self.parts.get(element)
        if parts and parts.end is not None:
            self.edited.update(range(parts.tag_end + 1, parts.end))
        elif text:
            self.open(element)
        for child in list(element):
            element.remove(child)
        element.text = text

    # -- verdicts

    def meaning(self, element=None):
        """Converts the tree, or an element, to comparable values."""
        return meaning(self.root if element is None else element, lambda it: it in self.loose)

    def fault(self, result):
        """Compares the document afterwards with the tree and the pieces. Returns the first fault."""
        try:
            tree = etree.fromstring(result.encode())
        except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
            return f"libxml2: {error}"
        loose = {it for it, own in zip(tree.iter(etree.Element), self.root.iter(etree.Element)) if own in self.loose}
        found, wanted = meaning(tree, loose.__contains__), self.meaning()
        if found != wanted:
            return f"the meaning is\n{found}\nand not\n{wanted}"
        rest = pieces(result)
        at = kept = 0
        for position, piece in enumerate(self.pieces):
            if position in self.edited:
                continue
            if piece[0] == "text":  # the texts around an element that is gone are one
                begin = next((n for n in range(at, len(rest)) if rest[n][0] == "text" and has(rest[n][1], piece[1])), None)
            else:
                begin = next((n for n in range(at, len(rest)) if rest[n] == piece), None)
            if begin is None:
                return f"{piece[1]!r} is gone"
            at = begin if piece[0] == "text" else begin + 1
            kept += piece[0] != "text"
        new = sum(kind != "text" and not is_declaration(token) for kind, token in rest) - kept
        declared = sum(is_declaration(token) for kind, token in self.pieces if kind == "attribute")
        return f"{new} new pieces, and not at most {self.new}" if new > self.new + declared else None


def has(text, part):
    """Whether a text has this one as a part. In "]]>", its > is a reference now."""
    return part in text or part.replace("&gt;", ">") in text.replace("&gt;", ">")


def is_declaration(token):
    return token.split("=")[0].strip().split(":")[0] == "xmlns"


def meaning(element, is_loose):
    """Converts an element to comparable values. In loose ones, white space in texts does not count."""

    def own(text):
        return "".join((text or "").split()) if is_loose(element) else (text or "")

    inside = [own(element.text)]
    for child in element:
        if isinstance(child.tag, str):
            inside.append(meaning(child, is_loose))
        else:
            inside.append((type(child).__name__, child.text))
        inside.append(own(child.tail))
    return element.tag, sorted(element.attrib.items()), inside


# ---- steps ----


class Steps:
    """Makes random steps and does them in the model."""

    def __init__(self, chance, model):
        self.chance, self.model, self.steps = chance, model, []
        self.named = {"root": model.root}
        # What is done to an element that is gone does not show, but is allowed.
        self.gone = set()

    def add(self, do, on, **more):
        self.steps.append({"do": do, "on": on, **more})

    def name_of(self, element):
        """Returns the name of an element in the steps; adds steps that find it."""
        for name, it in self.named.items():
            if it is element:
                return name
        parent = element.getparent()
        on = self.name_of(parent)
        new = f"e{len(self.named)}"
        siblings = list(parent.iterchildren(etree.Element))
        names = [new if it is element else f"{new}s{n}" for n, it in enumerate(siblings)]
        self.add("find_all", on, path="*", **{"as": names})
        self.named.update(zip(names, siblings))
        return new

    def some_element(self):
        """Returns any element that is still there, or now and then one that is gone."""
        chance = self.chance
        if chance.random() < 0.05:
            gone = [it for it in self.named.values() if it in self.gone]
            if gone:
                return chance.choice(gone)
        return chance.choice(list(self.model.root.iter(etree.Element)))

    def some_name(self, context, names=("a", "b", "c", "ab", "k"), attribute=False):
        """Returns a name as it is written in a step, and expanded."""
        chance = self.chance
        local = chance.choice(names)
        if chance.random() < 0.3:
            prefix = chance.choice(("qemu", "app", "qemu", "xml") if attribute else ("qemu", "app", "qemu", "app", "xml"))
            return f"{prefix}:{local}", f"{{{TABLE[prefix]}}}{local}"
        uri = "" if attribute else etree.QName(context).namespace
        return local, f"{{{uri}}}{local}" if uri else local

    def some_path(self, context, length, any_name=True):
        """Returns a path, its values, and the steps that it means."""
        chance, path, values, steps = self.chance, [], [], []
        for _ in range(length):
            if any_name and chance.random() < 0.2:
                written = expanded = "*"
            else:
                written, expanded = self.some_name(context)
            predicates = {}
            for _ in range(chance.choice((0, 0, 0, 1, 1, 2))):
                attribute, key = self.some_name(context, ("a", "b", "k"), attribute=True)
                if key in predicates:
                    continue
                value = chance.choice(("", "1", "2", "1", "2", "/a[1]", "'", '"', "\"'", "<&>", "\t\r\n", "ü"))
                predicates[key] = value
                quotes = [it for it in ("'", '"') if it not in value]
                if quotes and chance.random() < 0.5:
                    quote = chance.choice(quotes)
                    written += f"[@{attribute}={quote}{value}{quote}]"
                else:
                    written += f"[@{attribute}=?]"
                    values.append(value)
            path.append(written)
            steps.append((expanded, list(predicates.items())))
        step = {"path": "/".join(path), **({"values": values} if values else {})}
        return step, steps

    def make(self):
        """Adds one random step."""
        chance, model = self.chance, self.model
        element = self.some_element()
        on = self.name_of(element)
        kind = "many_attributes" if chance.random() < 0.01 else chance.choice(("find", "find_all", "ensure", "ensure", "append", "append", "insert_before", "remove",
                              "set", "set", "set", "remove_attribute", "text", "set_text", "get"))  # fmt: skip
        before, was_gone = (model.edited.copy(), model.new), element in self.gone
        getattr(self, kind)(element, on)
        if was_gone:
            model.edited, model.new = before

    def result(self, element):
        new = f"e{len(self.named)}"
        self.named[new] = element
        if self.model.is_attached(element):
            return new
        self.gone.add(element)
        return new

    def find(self, element, on):
        step, steps = self.some_path(element, self.chance.choice((1, 1, 2, 3)))
        found = self.model.find_all(element, steps)
        self.add("find", on, **step, **{"as": self.result(found[0]) if found else None})

    def find_all(self, element, on):
        step, steps = self.some_path(element, self.chance.choice((1, 1, 2, 3)))
        names = [self.result(it) for it in self.model.find_all(element, steps)]
        self.add("find_all", on, **step, **{"as": names})

    def ensure(self, element, on):
        step, steps = self.some_path(element, self.chance.choice((1, 1, 2, 3)), any_name=self.chance.random() < 0.2)
        there = next(n for n in range(len(steps), -1, -1) if self.model.find_all(element, steps[:n]))
        if any(name == "*" for name, _ in steps[there:]):
            return
        found = self.model.find_all(element, steps[:there])[0]
        for missing in steps[there:]:
            found = self.model.append(found, missing)
        self.add("ensure", on, **step, **{"as": self.result(found)})

    def append(self, element, on):
        step, steps = self.some_path(element, 1, any_name=False)
        self.add("append", on, **step, **{"as": self.result(self.model.append(element, steps[0]))})

    def insert_before(self, element, on):
        if element is self.model.root:
            return
        step, steps = self.some_path(element, 1, any_name=False)
        self.add("insert_before", on, **step, **{"as": self.result(self.model.insert_before(element, steps[0]))})

    def remove(self, element, on):
        if element is self.model.root or not self.model.is_attached(element):
            return
        self.model.remove(element)
        self.gone.update(element.iter(etree.Element))
        self.add("remove", on)

    def set(self, element, on):
        present = [it for it in element.attrib if it.isascii() and not it.startswith("{")]
        name, expanded = self.some_name(element, ("a", "b", "k", "z"), attribute=True)
        if present and self.chance.random() < 0.5:
            name = expanded = self.chance.choice(present)
        value = self.chance.choice(("1", "2", "", "\t<'\">&\r\n", "ü", "]]>"))
        self.add("set", on, name=name, value=value)
        self.model.set(element, expanded, value)

    def remove_attribute(self, element, on):
        name, expanded = self.some_name(element, ("a", "b", "k"), attribute=True)
        self.add("remove_attribute", on, name=name)
        self.model.remove_attribute(element, expanded)

    def get(self, element, on):
        name, expanded = self.some_name(element, ("a", "b", "k"), attribute=True)
        self.add("get", on, name=name, **{"is": element.get(expanded)})

    def many_attributes(self, element, on):
        """Sets, changes, removes and reads more attributes than SDKs keep in a plain list."""
        names = []
        for number in range(self.chance.choice((17, 20, 50, 400))):
            prefix = self.chance.choice(("", "", "", "qemu", "app"))
            names.append((f"{prefix}:n{number}" if prefix else f"n{number}", f"{{{TABLE[prefix]}}}n{number}" if prefix else f"n{number}"))
        for name, expanded in names + self.chance.sample(names, len(names) // 2):
            value = self.chance.choice(("1", "value " * 5, "<'\">"))
            self.add("set", on, name=name, value=value)
            self.model.set(element, expanded, value)
        for name, expanded in self.chance.sample(names, self.chance.randrange(len(names))):
            self.add("remove_attribute", on, name=name)
            self.model.remove_attribute(element, expanded)
        for name, expanded in self.chance.sample(names, 5):
            self.add("get", on, name=name, **{"is": element.get(expanded)})

    def text(self, element, on):
        if element in self.model.loose:  # the white space in it is not the model's concern
            return
        self.add("text", on, **{"is": (element.text or "") + "".join(it.tail or "" for it in element)})

    def set_text(self, element, on):
        if self.chance.random() < 0.5 and len(element):
            return
        text = self.chance.choice(("", "t", "\t<'\">&\r\n", "]]>", "ü", (element.text or "")))
        if self.chance.random() < 0.5 and element in self.model.loose:
            return
        gone = list(element.iterdescendants(etree.Element))
        attached = self.model.is_attached(element)
        self.model.set_text(element, text)
        self.model.loose.discard(element)
        if attached:
            self.gone.update(gone)
        self.add("set_text", on, value=text)


def case(seed):
    """Returns a case and its model after the edits."""
    chance = random.Random(seed)
    text = Documents(chance).document()
    model = Model(text)
    steps = Steps(chance, model)
    for _ in range(chance.randrange(1, 12)):
        steps.make()
    return {"document": text, "namespaces": {"app": APP}, "steps": steps.steps}, model


# ---- broken documents ----

# What a mutation puts into a document, or in the place of a character.
MUTATIONS = (
    "", "", "<", ">", "/", "&", "'", '"', "=", "!", "?", "-", "a", "1", ":", " ", "\r", "\n", "\x01", "\ufffe", "]]>", "-->", "--",
    "<!--", "<![CDATA[", "<?", "<a>", "</a>", "<a/>", "<a:b/>", "<xml:a/>", "<xmlns:a/>", "<a:b:c/>", "<?a:b c?>", "<?xml?>", "<?p",
    "<?xml version='1.0'?>", "&#0;", "&#xD800;", "&#x10FFFF;", "&lt", " a='1'", " b='<'", " q:a='1'", " xml:a='1'", " xmlns=''",
    " xmlns:p=''", " xmlns:xml='urn:x'", f" xmlns:xml='{XML}'", f" xmlns:p='{XML}'", f" xmlns='{XML}'", " xmlns:xmlns='urn:x'",
    " xmlns:p='http://www.w3.org/2000/xmlns/'", f" xmlns:p='{APP}' xmlns:q='{APP}' p:a='' q:a=''",
)  # fmt: skip
# Not a fault for editors: an undeclared prefix, which KubeVirt leaves, and a namespace that is not
# a URI. But libxml2 may not look for other faults then.
NO_FAULTS = {"NS_ERR_UNDEFINED_NAMESPACE", "WAR_NS_URI", "WAR_NS_URI_RELATIVE"}


def broken(seed):
    """Returns a document with faults, or with changes that may be faults."""
    chance = random.Random(seed)
    text = Documents(chance).document()
    for _ in range(chance.choice((1, 1, 2, 3))):
        at = chance.choice((0, len(text), chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)))
        text = text[:at] + chance.choice(MUTATIONS) + text[at + chance.randrange(2) :]
    return text


def is_well_formed(text):
    """What libxml2 says of a document without a document type. `None`: it cannot say."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True)
    raised = False
    try:
        etree.fromstring(text.encode(), parser)
    except etree.XMLSyntaxError:
        raised = True
    errors = {error.type_name for error in parser.error_log}
    if errors and errors <= NO_FAULTS:
        return None
    return not errors and not raised


def verdict_fault(runners, seeds):
    """Returns what is wrong with the runners' verdicts on broken documents."""
    lines = [json.dumps({"document": broken(seed), "steps": []}).encode() + b"\n" for seed in seeds]
    verdicts = [[json.loads(line) for line in answers(runner, lines)] for runner in runners]
    counts = {True: 0, False: 0, None: 0}
    for seed, *found in zip(seeds, *verdicts, strict=True):
        text = broken(seed)
        wanted = is_well_formed(text)
        counts[wanted] += 1
        accepted = ["document" in it for it in found]
        if len({*accepted, accepted[0] if wanted is None else wanted}) > 1 or any(it.get("document", text) != text for it in found):
            return f"broken document {seed}, {text!r}: libxml2 accepts it: {wanted}; the runners: {found}"
    return f"the verdicts are {counts}" if min(counts.values()) < len(seeds) // 50 else None


# ---- programs ----


def answers(command, lines):
    """Runs a program and feeds it lines. Returns the lines that it prints."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def feed():
        for line in lines:
            process.stdin.write(line)
        process.stdin.close()

    feeder = threading.Thread(target=feed, daemon=True)
    feeder.start()
    found = process.stdout.read().decode().split("\n")[:-1]  # other line breaks may be in the JSON
    if process.wait():
        sys.exit(f"{command[0]} has exited with status {process.returncode}")
    feeder.join()
    return found


def documents(runner, seeds):
    """Returns what a runner makes of the cases with these numbers."""
    lines = answers(runner, (json.dumps(case(seed)[0]).encode() + b"\n" for seed in seeds))
    if len(lines) != len(seeds):
        sys.exit(f"{runner[0]} has printed {len(lines)} lines for {len(seeds)} cases")
    return [json.loads(line) for line in lines]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0, help="number of the first case")
    parser.add_argument("--judge", help="a program like tests/xml/judge.go")
    parser.add_argument("--like", action="append", default=[], help="the runner of another language")
    parser.add_argument("runner", nargs="+")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.cases)
    # The verdicts need new models: kept ones would take much memory.
    results = documents(options.runner, seeds)
    others = [(it, documents([it], seeds)) for it in options.like]
    changed = edits = 0
    for seed, result in zip(seeds, results):
        given, model = case(seed)
        text = result.get("document")
        fault = f"the runner: {result.get('error')}" if text is None else model.fault(text)
        for name, found in others:
            if not fault and found[seed - options.seed] != result:
                fault = f"{name} has\n{found[seed - options.seed]}"
        if fault:
            print(f"case {seed}, {given['document']!r}", *map(json.dumps, given["steps"]), f"result {text!r}", fault, sep="\n  ")
            return 1
        changed += text != given["document"]
        edits += len(given["steps"])
    if changed < len(seeds) // 3:
        sys.exit(f"only {changed} of {len(seeds)} cases change their document")
    if fault := verdict_fault([options.runner, *([it] for it in options.like)], seeds):
        print(fault)
        return 1
    if options.judge:
        texts = [result["document"].encode() for result in results]
        verdicts = answers([options.judge], (len(it).to_bytes(4, "big") + it for it in texts))
        for seed, verdict in zip(seeds, verdicts):
            if verdict:
                print(f"case {seed}: {options.judge}: {verdict}: {results[seed - options.seed]['document']!r}")
                return 1
    print(f"{len(seeds)} cases with {edits} steps: {changed} documents have changed, all as with lxml" + (f" and {', '.join(options.like)}" if others else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
