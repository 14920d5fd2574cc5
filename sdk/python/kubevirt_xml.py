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

from _thread import allocate_lock
from xml.parsers.expat import ErrorString, ExpatError, ParserCreate

# A hook's start is part of a VM's start, so `typing` is not imported. Type checkers take this name
# for typing's.
TYPE_CHECKING = False
if TYPE_CHECKING:
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
            begin, end = _value_places(start, 0)[0][list(values).index(attribute)]
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
        return self._find(name, attributes, None)

    def child(self, name: str, /, **attributes: str) -> Element | None:
        """The first child element with this name and these attributes, or `None`."""
        found = self._find(name, attributes, 1)
        return found[0] if found else None

    def ensure(self, name: str, /, **attributes: str) -> Element:
        """The first child element with this name and these attributes. If there is none, it is
        appended."""
        return self.child(name, **attributes) or self.append(name, **attributes)

    def append(self, name: str, /, **attributes: str) -> Element:
        """Adds an element behind the last child element, on a line of its own if that has one."""
        if self._depth >= MAX_DEPTH:
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
        if isinstance(child, Element) and child in nodes:
            at = nodes.index(child)
            first = at - 1 if at > 0 and _is_space(nodes[at - 1]) else at
            del nodes[first : at + 1]

    def _find(
        self, name: str | None, attributes: dict[str, str], most: int | None
    ) -> list[Element]:
        content = self._content
        found: list[Element] = []
        if isinstance(content, list):
            for node in content:
                if isinstance(node, Element) and node._is(name, attributes):
                    found.append(node)
                    if len(found) == most:
                        break
            return found
        at = content.begin
        while len(found) != most:
            element, at = content.element_from(at, name or "", self._depth + 1)
            if element is None:
                break
            if element._is(name, attributes):
                found.append(element)
        return found

    def _is(self, name: str | None, attributes: dict[str, str]) -> bool:
        if name is not None and self._name != name:
            return False
        return not attributes or attributes.items() <= self._values().items()

    def _values(self) -> dict[str, str]:
        """The attributes with their values, in the order in which they are written."""
        values, start = self._attributes, self._start
        if values is None:
            values = self._attributes = {}
            if "'" in start or "&" in start or not start.isprintable():
                parser = ParserCreate("utf-8")
                parser.StartElementHandler = lambda _, attributes: values.update(attributes)
                parser.Parse(start + (self._end and f"</{self._name}>"), True)
            elif '"' in start:  # nothing to resolve, and no other quotes
                parts = start.split('"')
                names = [part.rstrip(" =").rpartition(" ")[2] for part in parts[:-1:2]]
                values.update(zip(names, parts[1::2]))
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
    at = _root(document)
    try:
        ParserCreate("utf-8").Parse(document, True)
    except ExpatError as error:
        place = f"line {error.lineno}, column {error.offset + 1}"
        raise XmlError(f"{place}: {ErrorString(error.code)}") from None
    except UnicodeEncodeError as error:
        raise _error(document[: error.start], "half of a surrogate pair") from None
    text = _Text(document, at)
    # One character is found at a far greater speed than two.
    is_plain = ("!" not in document or "<!" not in document) and (
        "?" not in document or "<?" not in document
    )
    end = document.rindex("<") if is_plain else text.end(at)
    root, behind = text.element(at, 1, end)
    return Document(document[:at], root, document[behind:])


def _root(document: str) -> int:
    """Where the first tag begins, if this is a well-formed document."""
    at = document.find("<")
    while document.startswith(("<!", "<?"), at):
        if document.startswith("<!DOCTYPE", at):
            raise _error(document[:at], "a document type")
        end = _find_end(document, at)
        if end < 0:
            break
        at = document.find("<", end)
    return at


class _Text:
    """A well-formed document. Where its elements end is found out from its begin on, as far as it
    was asked for."""

    __slots__ = ("_ends", "_lock", "_next", "_opened", "text")

    def __init__(self, text: str, root: int) -> None:
        self.text, self._next = text, root
        self._ends: dict[int, int] = {}
        self._opened: list[int] = []
        self._lock = allocate_lock()  # threads may read one document

    def end(self, at: int) -> int:
        """Where the end tag begins that belongs to the start tag here. Of <a/> it is the same."""
        if at not in self._ends:
            with self._lock:
                self._scan(at)
        return self._ends[at]

    def _scan(self, at: int) -> None:
        """Finds out where elements end, as far as the one that begins here."""
        text, ends, opened, tag = self.text, self._ends, self._opened, self._next
        find = text.find
        while at not in ends:
            following = find("<", tag + 1)
            second = text[tag + 1]
            if second == "/":
                ends[opened.pop()] = tag
            elif second in "!?":
                following = find("<", _find_end(text, tag))
            elif len(opened) == MAX_DEPTH:
                self._next = tag
                raise _error(text[:tag], f"more than {MAX_DEPTH} elements in each other")
            elif (following < 0 or find("/>", tag, following) >= 0) and (
                text[self.behind(tag) - 2] == "/"
            ):
                ends[tag] = tag
            else:
                opened.append(tag)
            tag = following
        self._next = tag

    def behind(self, at: int) -> int:
        """Where the tag ends that begins here."""
        return _value_places(self.text, at)[1]

    def element(self, at: int, depth: int, end: int) -> tuple[Element, int]:
        """The element whose tags begin here, and where it ends."""
        text, inside = self.text, self.behind(at)
        start = text[at:inside]
        if end == at:
            name = start[1:].split(None, 1)[0].rstrip("/>")
            return Element(name, start, [], "", depth), inside
        behind = text.index(">", end) + 1
        tag, content = text[end:behind], _Unread(self, inside, end)
        return Element(tag[2:-1].rstrip(SPACE), start, content, tag, depth), behind


class _Unread:
    """The content of an element, of which only what was asked for has become elements."""

    __slots__ = ("_end", "_found", "_whole", "begin")

    def __init__(self, whole: _Text, begin: int, end: int) -> None:
        self._whole, self.begin, self._end = whole, begin, end
        # By where they begin, with where they end.
        self._found: dict[int, tuple[Element, int]] = {}

    def element_from(self, at: int, name: str, depth: int) -> tuple[Element | None, int]:
        """The next element from here on whose name begins so, and where it ends. `depth` is its."""
        whole, text, end = self._whole, self._whole.text, self._end
        at = text.find("<", at, end)
        while at >= 0:
            if text[at + 1] in "!?":
                last = _find_end(text, at)
            elif text.startswith(name, at + 1):
                return self._element(at, depth)
            else:
                last = whole.end(at)
            at = text.find("<", last + 1, end)
        return None, end

    def _element(self, at: int, depth: int) -> tuple[Element, int]:
        if at not in self._found:
            self._found[at] = self._whole.element(at, depth, self._whole.end(at))
        return self._found[at]

    def nodes(self, depth: int) -> list[Node]:
        """All that is inside."""
        text, begin = self._whole.text, self.begin
        nodes: list[Node] = []
        while (at := text.find("<", begin, self._end)) >= 0:
            nodes.append(text[begin:at])
            if text[at + 1] in "!?":
                begin = _find_end(text, at) + 1
                nodes.append(text[at:begin])
            else:
                element, begin = self._element(at, depth)
                nodes.append(element)
        nodes.append(text[begin : self._end])
        return nodes

    def write(self, parts: list[str]) -> None:
        text, begin = self._whole.text, self.begin
        for at, (element, behind) in sorted(self._found.items()):
            parts.append(text[begin:at])
            element._write(parts)
            begin = behind
        parts.append(text[begin : self._end])


def _find_end(text: str, at: int) -> int:
    """Where the > of a comment, a CDATA section or an instruction is, or -1."""
    if text.startswith("<?", at):
        closing, begin = "?>", 2
    elif text.startswith("<!--", at):
        closing, begin = "-->", 4
    else:
        closing, begin = "]]>", 9
    end = text.find(closing, at + begin)
    return end if end < 0 else end + len(closing) - 1


def _value_places(text: str, begin: int) -> tuple[list[tuple[int, int]], int]:
    """Where the values of a tag's attributes are, with their quotes, and where the tag ends."""
    values = []
    end = text.index(">", begin)
    at = text.find("=", begin, end)  # outside of values there is none but before them
    while at >= 0:
        at += 1
        while text[at] in SPACE:
            at += 1
        first, at = at, text.index(text[at], at + 1) + 1
        values.append((first, at))
        if end < at:  # a > in a value
            end = text.index(">", at)
        at = text.find("=", at, end)
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
