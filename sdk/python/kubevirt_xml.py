"""Changes XML documents, and leaves every byte alone that was not asked to change.

    import kubevirt_xml

    document = kubevirt_xml.parse(domain)
    document.root.ensure("os").ensure("smbios").set("mode", "sysinfo")
    return str(document)

White space, comments, quotes and the order of attributes stay as they came. Names are compared as
they are written, with their prefix: "qemu:commandline". README.md has the whole interface on one
page. The file needs nothing but Python 3.9 or later, and may be copied.
"""

from __future__ import annotations

from xml.parsers.expat import ErrorString, ExpatError, ParserCreate

__all__ = ["Document", "Element", "XmlError", "parse"]

# How deep elements may lie in each other: libxml2, with which libvirt reads, takes no more.
MAX_DEPTH = 256

SPACE = " \t\r\n"
TEXT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
# A parser makes spaces of the white space in an attribute, unless it is escaped.
VALUE_ESCAPES = {**TEXT_ESCAPES, **str.maketrans({'"': "&quot;", "\t": "&#9;", "\n": "&#10;"})}


class XmlError(ValueError):
    """A document that cannot be read. The message says where and why, and quotes nothing of it."""


class Document:
    """A well-formed document. `str` of it is its text with the changes; without any, it is the text
    that was parsed."""

    __slots__ = ("_after", "_before", "root")

    def __init__(self, before: str, root: Element, after: str) -> None:
        self._before, self.root, self._after = before, root, after

    def __str__(self) -> str:
        parts = [self._before]
        self.root._write(parts)
        parts.append(self._after)
        return "".join(parts)


class Element:
    """One element of a document. `name` is as it is written, with its prefix."""

    __slots__ = ("_at", "_attributes", "_depth", "_end", "_nodes", "_source", "_start", "name")

    def __init__(self, start: str, end: str, depth: int, source: _Source, at: int) -> None:
        self.name = start.split(None, 1)[0].strip("</>")
        # The tags as they are written; of <a/> the end is empty.
        self._start, self._end, self._depth = start, end, depth
        # The number of the start tag in what was parsed, where the content is until it is needed.
        self._source, self._at = source, at
        self._nodes: list[Element | str] | None = None
        self._attributes: dict[str, str] | None = None

    def get(self, attribute: str, /) -> str | None:
        """An attribute's value, or `None`."""
        return self._values().get(attribute)

    def set(self, attribute: str, value: str, /) -> None:
        """Sets an attribute. One that has this value already stays as it is written."""
        values, start = self._values(), self._start
        if values.get(attribute) == value:
            return
        quoted = f'"{_escaped(value, VALUE_ESCAPES)}"'
        if attribute in values:
            begin, end = _attributes(start)[0][list(values).index(attribute)]
        else:
            quoted = f" {_checked(attribute)}={quoted}"
            begin = end = len(start[: -1 if self._end else -2].rstrip(SPACE))
        self._start = start[:begin] + quoted + start[end:]
        values[attribute] = value

    @property
    def text(self) -> str:
        """The element's own text: without child elements and comments, and references resolved.

        Set, it becomes the only content. An element that has just this text stays as it is."""
        nodes = self._content()
        return "".join([_resolved(node) for node in nodes if isinstance(node, str)])

    @text.setter
    def text(self, text: str) -> None:
        nodes = self._content()
        is_text = all(isinstance(node, str) and node[:2] not in ("<!-", "<?") for node in nodes)
        if is_text and self.text == text:
            return
        written = _escaped(text, TEXT_ESCAPES)
        self._open()
        nodes[:] = [written]

    def children(self, name: str, /, **attributes: str) -> list[Element]:
        """The child elements with this name and these attributes."""
        return [
            node
            for node in self._content()
            if isinstance(node, Element) and node._is(name, attributes)
        ]

    def child(self, name: str, /, **attributes: str) -> Element | None:
        """The first child element with this name and these attributes, or `None`."""
        for node in self._content():
            if isinstance(node, Element) and node._is(name, attributes):
                return node
        return None

    def ensure(self, name: str, /, **attributes: str) -> Element:
        """The first child element with this name and these attributes. If there is none, it is
        appended."""
        return self.child(name, **attributes) or self.append(name, **attributes)

    def append(self, name: str, /, **attributes: str) -> Element:
        """Adds an element behind the last child element, on a line of its own if that has one."""
        if self._depth == MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} elements in each other")
        child = Element(f"<{_checked(name)}>", f"</{name}>", self._depth + 1, self._source, 0)
        child._nodes = []
        for attribute, value in attributes.items():
            child.set(attribute, value)
        self._open()
        nodes = self._content()
        last = len(nodes) - 1
        while last >= 0 and isinstance(nodes[last], str):
            last -= 1
        if last < 0:
            nodes.append(child)
        elif last > 0 and _is_space(nodes[last - 1]):
            nodes[last + 1 : last + 1] = [nodes[last - 1], child]
        else:
            nodes.insert(last + 1, child)
        return child

    def remove(self, child: Element | None, /) -> None:
        """Takes out a child element, with the white space before it. Anything else is no child, and
        nothing changes."""
        nodes = self._content()
        if child in nodes:
            at = nodes.index(child)
            first = at - 1 if at > 0 and _is_space(nodes[at - 1]) else at
            del nodes[first : at + 1]

    def _is(self, name: str, attributes: dict[str, str]) -> bool:
        if self.name != name:
            return False
        return not attributes or attributes.items() <= self._values().items()

    def _values(self) -> dict[str, str]:
        """The attributes with their values, in the order in which they are written."""
        values = self._attributes
        if values is None:
            values = self._attributes = {}
            if "=" in self._start:
                parser = ParserCreate("utf-8")
                parser.StartElementHandler = lambda _, attributes: values.update(attributes)
                parser.Parse(self._start + (self._end and f"</{self.name}>"), True)
        return values

    def _content(self) -> list[Element | str]:
        """What is inside: elements, and texts, comments, … as they are written."""
        nodes = self._nodes
        if nodes is None:
            nodes = self._nodes = self._source.content(self._at, self._depth + 1)
        return nodes

    def _open(self) -> None:
        """Makes <a></a> of <a/>."""
        if not self._end:
            self._start = self._start[:-2].rstrip(SPACE) + ">"
            self._end = f"</{self.name}>"

    def _write(self, parts: list[str]) -> None:
        parts.append(self._start)
        if self._nodes is None:
            parts.append(self._source.inside(self._at))
        else:
            for node in self._nodes:
                if isinstance(node, str):
                    parts.append(node)
                else:
                    node._write(parts)
        parts.append(self._end)


def parse(document: str) -> Document:
    """Reads a document, which has to be well-formed and without a document type. It is text already,
    so what encoding its declaration names does not matter."""
    pieces = document.split("<")
    if "<!" in document or "<?" in document:
        pieces = _joined(pieces)
    try:
        ParserCreate("utf-8").Parse(document, True)
    except ExpatError as error:
        place = f"line {error.lineno}, column {error.offset + 1}"
        raise XmlError(f"{place}: {ErrorString(error.code)}") from None
    except UnicodeEncodeError as error:
        raise _error(document[: error.start], "half of a surrogate pair") from None
    source = _Source(pieces)
    root = next(at for at, piece in enumerate(pieces) if at and piece[0] not in "!?")
    last = source.ends[root]
    before, after = pieces[:root], pieces[last + 1 :]
    after.insert(0, pieces[last][_length(pieces[last]) :])
    return Document("<".join(before), source.element(root, 1), "<".join(after))


class _Source:
    """A document that was parsed: what stands before the first <, and then every tag, comment, CDATA
    section and instruction without its <, with the text behind it. Elements are made of it when
    somebody looks for them."""

    __slots__ = ("ends", "pieces")

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces
        # The number of each element's end tag; of <a/>, and of what is no element, its own.
        self.ends = ends = list(range(len(pieces)))
        opened: list[int] = []
        for at, piece in enumerate(pieces[1:], 1):
            first = piece[0]
            if first == "/":
                ends[opened.pop()] = at
            elif first not in "!?" and ("/>" not in piece or piece[_length(piece) - 2] != "/"):
                opened.append(at)
                if len(opened) > MAX_DEPTH:
                    raise _error("<".join(pieces[:at]), f"more than {MAX_DEPTH} elements in each other")

    def element(self, at: int, depth: int) -> Element:
        piece, last = self.pieces[at], self.ends[at]
        end = "" if last == at else "<" + self.pieces[last].partition(">")[0] + ">"
        return Element("<" + piece[: _length(piece)], end, depth, self, at)

    def content(self, at: int, depth: int) -> list[Element | str]:
        """The nodes inside an element."""
        pieces, end = self.pieces, self.ends[at]
        nodes: list[Element | str] = []
        while at < end:
            text = pieces[at][_length(pieces[at]) :]
            if text:
                nodes.append(text)
            at += 1
            if at < end:
                piece = pieces[at]
                markup = piece[0] in "!?"
                nodes.append("<" + piece[: _length(piece)] if markup else self.element(at, depth))
                at = self.ends[at]
        return nodes

    def inside(self, at: int) -> str:
        """The same, as it is written."""
        pieces = self.pieces[at : self.ends[at]]
        if pieces:
            pieces[0] = pieces[0][_length(pieces[0]) :]
        return "<".join(pieces)


def _joined(pieces: list[str]) -> list[str]:
    """Puts together what a < in a comment, a CDATA section or an instruction has taken apart. Whether
    the document is well-formed is not known yet."""
    joined = pieces[:1]
    rest = iter(pieces[1:])
    for piece in rest:
        if piece.startswith(("!", "?")):
            if piece.startswith("!DOCTYPE"):
                raise _error("<".join(joined), "a document type")
            closing, begin = _closing(piece)
            parts = [piece]
            while closing not in parts[-1][begin:]:
                parts.append(next(rest, closing))
                begin = 0
            piece = "<".join(parts)
        joined.append(piece)
    return joined


def _closing(piece: str) -> tuple[str, int]:
    """What ends a comment, a CDATA section or an instruction, and where it may be at the earliest."""
    if piece[0] == "?":
        return "?>", 1
    return ("-->", 3) if piece.startswith("!--") else ("]]>", 8)


def _length(piece: str) -> int:
    """How much of a piece is the tag, comment, …; the rest is the text behind it."""
    end = piece.find(">") + 1
    if piece.find(">", end) < 0:
        return end
    if piece[0] in "!?":
        closing, begin = _closing(piece)
        return piece.index(closing, begin) + len(closing)
    return _attributes(piece)[1]


def _attributes(tag: str) -> tuple[list[tuple[int, int]], int]:
    """Where the values of a tag's attributes are, with their quotes, and where the tag ends."""
    values = []
    end = tag.index(">")
    at = tag.find("=", 0, end)  # outside of values there is none but before them
    while at >= 0:
        at += 1
        while tag[at] in SPACE:
            at += 1
        begin, at = at, tag.index(tag[at], at + 1) + 1
        values.append((begin, at))
        if end < at:  # a > in a value
            end = tag.index(">", at)
        at = tag.find("=", at, end)
    return values, end + 1


def _resolved(written: str) -> str:
    """The text of a node that is no element."""
    if "<" not in written and "&" not in written and "\r" not in written:
        return written
    parts: list[str] = []
    parser = ParserCreate("utf-8")
    parser.CharacterDataHandler = parts.append
    parser.Parse(f"<a>{written}</a>", True)
    return "".join(parts)


def _escaped(text: str, escapes: dict[int, str]) -> str:
    escaped = text.translate(escapes)
    if not text.isprintable() and _first_name(f"<a>{escaped}</a>") != "a":
        raise ValueError("a text with a character that XML cannot hold")
    return escaped


def _checked(name: str) -> str:
    if not (name.isascii() and name.isidentifier()) and _first_name(f"<{name}/>") != name:
        raise ValueError("not a name of an element or attribute")
    return name


def _first_name(document: str) -> str | None:
    """The name of the root, or `None` if the document is not well-formed."""
    names: list[str] = []
    parser = ParserCreate("utf-8")
    parser.StartElementHandler = lambda name, _: names.append(name)
    try:
        parser.Parse(document, True)
    except (ExpatError, UnicodeEncodeError):
        return None
    return names[0]


def _is_space(node: Element | str) -> bool:
    return isinstance(node, str) and not node.strip(SPACE)


def _error(before: str, what: str) -> XmlError:
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return XmlError(f"line {line}, column {column}: {what}")
