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

# A hook's start is part of a VM's start, so `typing` is not imported. Type checkers take this name
# for typing's.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Union

    # An element, or a text, comment, … as it is written.
    Node = Union["Element", str]

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
    """One element of a document."""

    __slots__ = ("_attributes", "_content", "_depth", "_end", "_name", "_start")

    def __init__(
        self, name: str, start: str, content: list[Node] | _Unread, end: str, depth: int
    ) -> None:
        self._name, self._depth = name, depth
        # The tags are as they are written; of <a/> the end is empty.
        self._start, self._content, self._end = start, content, end
        self._attributes: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """Its name as it is written, with its prefix."""
        return self._name

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
            begin, end = _value_places(start)[0][list(values).index(attribute)]
        else:
            quoted = f" {_checked(attribute)}={quoted}"
            begin = end = len(start[: -1 if self._end else -2].rstrip(SPACE))
        self._start = start[:begin] + quoted + start[end:]
        values[attribute] = value

    @property
    def text(self) -> str:
        """The element's own text: without child elements and comments, and references resolved.

        Set, it becomes the only content. An element that has just this text stays as it is."""
        nodes = self._nodes()
        return "".join([_resolved(node) for node in nodes if isinstance(node, str)])

    @text.setter
    def text(self, text: str) -> None:
        nodes = self._nodes()
        is_text = all(isinstance(it, str) and not it.startswith(("<!--", "<?")) for it in nodes)
        if is_text and self.text == text:
            return
        written = _escaped(text, TEXT_ESCAPES)
        self._open()
        nodes[:] = [written]

    def children(self, name: str | None = None, /, **attributes: str) -> list[Element]:
        """The child elements with this name and these attributes. Without a name, those of any."""
        return list(self._find(name, attributes))

    def child(self, name: str, /, **attributes: str) -> Element | None:
        """The first child element with this name and these attributes, or `None`."""
        return next(self._find(name, attributes), None)

    def ensure(self, name: str, /, **attributes: str) -> Element:
        """The first child element with this name and these attributes. If there is none, it is
        appended."""
        return self.child(name, **attributes) or self.append(name, **attributes)

    def append(self, name: str, /, **attributes: str) -> Element:
        """Adds an element behind the last child element, on a line of its own if that has one."""
        if self._depth == MAX_DEPTH:
            raise ValueError(f"more than {MAX_DEPTH} elements in each other")
        child = Element(name, f"<{_checked(name)}>", [], f"</{name}>", self._depth + 1)
        for attribute, value in attributes.items():
            child.set(attribute, value)
        self._open()
        nodes = self._nodes()
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
        nodes = self._nodes()
        if child in nodes:
            at = nodes.index(child)
            first = at - 1 if at > 0 and _is_space(nodes[at - 1]) else at
            del nodes[first : at + 1]

    def _find(self, name: str | None, attributes: dict[str, str]) -> Iterator[Element]:
        content = self._content
        if isinstance(content, list):
            nodes: Iterator[Node] = iter(content)
        else:
            nodes = content.elements(name or "", self._depth + 1)
        for node in nodes:
            if isinstance(node, str) or (name is not None and node._name != name):
                continue
            if not attributes or attributes.items() <= node._values().items():
                yield node

    def _values(self) -> dict[str, str]:
        """The attributes with their values, in the order in which they are written."""
        values = self._attributes
        if values is None:
            values = self._attributes = {}
            if "=" in self._start:
                parser = ParserCreate("utf-8")
                parser.StartElementHandler = lambda _, attributes: values.update(attributes)
                parser.Parse(self._start + (self._end and f"</{self._name}>"), True)
        return values

    def _nodes(self) -> list[Node]:
        """What is inside: elements, and texts, comments, … as they are written."""
        content = self._content
        if isinstance(content, _Unread):
            content = self._content = content.nodes(self._depth + 1)
        return content

    def _open(self) -> None:
        """Makes <a></a> of <a/>."""
        if not self._end:
            self._start = self._start[:-2].rstrip(SPACE) + ">"
            self._end = f"</{self._name}>"

    def _write(self, parts: list[str]) -> None:
        parts.append(self._start)
        content = self._content
        if isinstance(content, _Unread):
            content.write(parts)
        else:
            for node in content:
                if isinstance(node, str):
                    parts.append(node)
                else:
                    node._write(parts)
        parts.append(self._end)


def parse(document: str) -> Document:
    """Reads a document, which has to be well-formed and without a document type. As it is text
    already, it does not matter which encoding its declaration names."""
    # What is before the first <; then tags, comments, CDATA sections and instructions, each without
    # its < and with the text behind it. A well-formed document has no other <.
    pieces = document.split("<")
    if "!" in document or "?" in document:
        pieces = _joined(pieces)
    try:
        ParserCreate("utf-8").Parse(document, True)
    except ExpatError as error:
        place = f"line {error.lineno}, column {error.offset + 1}"
        raise XmlError(f"{place}: {ErrorString(error.code)}") from None
    except UnicodeEncodeError as error:
        raise _error(document[: error.start], "half of a surrogate pair") from None
    ends = _ends(pieces)
    at = next(at for at, piece in enumerate(pieces) if at and piece[0] not in "!?")
    root, behind = _element(pieces, ends, at, 1)
    return Document("<".join(pieces[:at]), root, "<".join([behind, *pieces[ends[at] + 1 :]]))


class _Unread:
    """The content of an element, of which only what was asked for has become elements."""

    __slots__ = ("_at", "_end", "_ends", "_found", "_pieces", "_text")

    def __init__(self, pieces: list[str], ends: list[int], text: str, at: int, end: int) -> None:
        self._pieces, self._ends = pieces, ends
        # The text behind the start tag, the number of the next piece, and that of the end tag's.
        self._text, self._at, self._end = text, at, end
        self._found: dict[int, tuple[Element, str]] = {}

    def elements(self, name: str, depth: int) -> Iterator[Element]:
        """The elements inside whose names begin so. `depth` is theirs."""
        pieces, ends, at = self._pieces, self._ends, self._at
        while at < self._end:
            if pieces[at].startswith(name) and pieces[at][0] not in "!?":
                if at not in self._found:
                    self._found[at] = _element(pieces, ends, at, depth)
                yield self._found[at][0]
            at = ends[at] + 1

    def nodes(self, depth: int) -> list[Node]:
        """All that is inside."""
        pieces, ends, text, at = self._pieces, self._ends, self._text, self._at
        nodes: list[Node] = []
        while True:
            nodes.append(text)
            if at == self._end:
                return nodes
            if pieces[at][0] in "!?":
                markup, text = _cut(pieces[at])
                nodes.append("<" + markup)
            else:
                element, text = self._found.get(at) or _element(pieces, ends, at, depth)
                nodes.append(element)
            at = ends[at] + 1

    def write(self, parts: list[str]) -> None:
        text, at = self._text, self._at
        for number, (element, behind) in sorted(self._found.items()):
            parts.append("<".join([text, *self._pieces[at:number]]))
            element._write(parts)
            text, at = behind, self._ends[number] + 1
        parts.append("<".join([text, *self._pieces[at : self._end]]))


def _element(pieces: list[str], ends: list[int], at: int, depth: int) -> tuple[Element, str]:
    """The element that begins with a piece, and the text behind it."""
    start, text = _cut(pieces[at])
    last = ends[at]
    if last == at:
        name = start.split(None, 1)[0].rstrip("/>")
        return Element(name, "<" + start, [], "", depth), text
    end, _, behind = pieces[last].partition(">")
    content = _Unread(pieces, ends, text, at + 1, last)
    return Element(end[1:].rstrip(SPACE), "<" + start, content, f"<{end}>", depth), behind


def _ends(pieces: list[str]) -> list[int]:
    """For each piece that is a start tag the number of its end tag's; for all others their own."""
    ends = list(range(len(pieces)))
    opened: list[int] = []
    for at, piece in enumerate(pieces[1:], 1):
        first = piece[0]
        if first == "/":
            ends[opened.pop()] = at
        elif first not in "!?" and ("/>" not in piece or not _cut(piece)[0].endswith("/>")):
            opened.append(at)
            if len(opened) > MAX_DEPTH:
                raise _error("<".join(pieces[:at]), f"more than {MAX_DEPTH} elements in each other")
    return ends


def _joined(pieces: list[str]) -> list[str]:
    """Puts together again what a < in a comment, a CDATA section or an instruction has parted.
    Whether the document is well-formed is not known yet."""
    joined = pieces[:1]
    rest = iter(pieces[1:])
    for piece in rest:
        parts = [piece]
        if piece.startswith(("!", "?")):
            if piece.startswith("!DOCTYPE"):
                raise _error("<".join(joined), "a document type")
            closing, begin = _closing(piece)
            while closing not in parts[-1][begin:]:
                parts.append(next(rest, closing))
                begin = 0
        joined.append("<".join(parts))
    return joined


def _closing(piece: str) -> tuple[str, int]:
    """What ends a comment, a CDATA section or an instruction, and from where on."""
    if piece[0] == "?":
        return "?>", 1
    return ("-->", 3) if piece.startswith("!--") else ("]]>", 8)


def _cut(piece: str) -> tuple[str, str]:
    """A piece's tag, comment, …, and the text behind it."""
    markup, _, text = piece.partition(">")
    if ">" not in text:
        return markup + ">", text
    if piece[0] in "!?":
        closing, begin = _closing(piece)
        end = piece.index(closing, begin) + len(closing)
    else:
        end = _value_places(piece)[1]
    return piece[:end], piece[end:]


def _value_places(tag: str) -> tuple[list[tuple[int, int]], int]:
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


def _is_space(node: Node) -> bool:
    return isinstance(node, str) and not node.strip(SPACE)


def _error(before: str, what: str) -> XmlError:
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return XmlError(f"line {line}, column {column}: {what}")
