"""Edits XML documents and keeps every byte that is not edited.

    import kubevirt_xml

    document = kubevirt_xml.parse(domain)
    document.root.ensure("os").ensure("smbios").set("mode", "sysinfo")
    return str(document)

White space, comments, quotes and the order of attributes are kept. Names are compared as written,
with their prefix: "qemu:commandline". README.md documents the whole interface on one page. This
file needs only Python 3.9 or later, and may be copied.
"""

from __future__ import annotations

from _thread import allocate_lock
from xml.parsers.expat import ErrorString, ExpatError, ParserCreate

# Starting the hook delays the VM's start, so `typing` is not imported. Type checkers treat this
# name as typing.TYPE_CHECKING.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Union

    # An element; or a text, a comment, … in its written form.
    Node = Union["Element", str]

__all__ = ["Document", "Element", "XmlError", "parse"]

# Maximum nesting depth of elements, which the shim enforces: libxml2, which libvirt uses, has about
# the same.
MAX_DEPTH = 255

SPACE = " \t\r\n"
TEXT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
# Parsers normalize unescaped white space in attributes to spaces.
VALUE_ESCAPES = {**TEXT_ESCAPES, **str.maketrans({'"': "&quot;", "\t": "&#9;", "\n": "&#10;"})}


class XmlError(ValueError):
    """An invalid document. The message has the position and the reason, and quotes nothing."""


class Document:
    """A well-formed document. `str(document)` returns its text with the changes; without changes,
    the text that was parsed."""

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
        # The tags in their written form; the end of <a/> is empty.
        self._start, self._content, self._end = start, content, end
        self._attributes: dict[str, str] | None = None

    @property
    def name(self) -> str:
        """The name as written, with its prefix."""
        return self._name

    def get(self, attribute: str, /) -> str | None:
        """Returns an attribute's value, or `None`."""
        return self._values().get(attribute)

    def set(self, attribute: str, value: str, /) -> None:
        """Sets an attribute. Changes nothing if it already has this value."""
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
        """The element's own text, without child elements and comments, with references resolved.

        Setting it replaces the content. Changes nothing if the content is already this text."""
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
        """Returns the child elements with this name and these attributes. Without a name, those
        with any name."""
        return self._find(name, attributes, None)

    def child(self, name: str, /, **attributes: str) -> Element | None:
        """Returns the first child element with this name and these attributes, or `None`."""
        found = self._find(name, attributes, 1)
        return found[0] if found else None

    def ensure(self, name: str, /, **attributes: str) -> Element:
        """Returns the first child element with this name and these attributes. Appends one if there
        is none."""
        return self.child(name, **attributes) or self.append(name, **attributes)

    def append(self, name: str, /, **attributes: str) -> Element:
        """Adds an element after the last child element, on a new line if that one is on its own
        line."""
        if self._depth >= MAX_DEPTH:
            raise ValueError(f"elements nested deeper than {MAX_DEPTH}")
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
        """Removes a child element and the white space before it. Changes nothing if `child` is not
        a child of this element."""
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
        """Returns the attributes with their values, in document order."""
        values, start = self._attributes, self._start
        if values is None:
            values = self._attributes = {}
            if "'" in start or "&" in start or not start.isprintable():
                parser = ParserCreate("utf-8")
                parser.StartElementHandler = lambda _, attributes: values.update(attributes)
                parser.Parse(start + (self._end and f"</{self._name}>"), True)
            elif '"' in start:  # double quotes only, and no references
                parts = start.split('"')
                names = [part.rstrip(" =").rpartition(" ")[2] for part in parts[:-1:2]]
                values.update(zip(names, parts[1::2]))
        return values

    def _nodes(self) -> list[Node]:
        """Returns the content: elements, and texts, comments, … in their written form."""
        content = self._content
        if isinstance(content, _Unread):
            content = self._content = content.nodes(self._depth + 1)
        return content

    def _open(self) -> None:
        """Turns <a/> into <a></a>."""
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
    """Parses a document, which must be well-formed and have no document type. The encoding in its
    declaration is ignored, because `document` is decoded already."""
    at = _root(document)
    try:
        ParserCreate("utf-8").Parse(document, True)
    except ExpatError as error:
        place = f"line {error.lineno}, column {error.offset + 1}"
        raise XmlError(f"{place}: {ErrorString(error.code)}") from None
    except UnicodeEncodeError as error:
        raise _error(document[: error.start], "a lone surrogate") from None
    text = _Text(document, at)
    # Searching for one character is much faster than for two.
    is_plain = ("!" not in document or "<!" not in document) and (
        "?" not in document or "<?" not in document
    )
    end = document.rindex("<") if is_plain else text.end(at)
    root, behind = text.element(at, 1, end)
    return Document(document[:at], root, document[behind:])


def _root(document: str) -> int:
    """Returns the position of the root's start tag, if the document is well-formed."""
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
    """The text of a well-formed document, and an index of where its elements end. The index grows
    from the start of the document, as far as callers ask."""

    __slots__ = ("_ends", "_lock", "_next", "_opened", "text")

    def __init__(self, text: str, root: int) -> None:
        self.text, self._next = text, root
        self._ends: dict[int, int] = {}
        self._opened: list[int] = []
        self._lock = allocate_lock()  # threads may read one document

    def end(self, at: int) -> int:
        """Returns the position of the end tag for the start tag at `at`; for <a/>, `at` itself."""
        if at not in self._ends:
            with self._lock:
                self._scan(at)
        return self._ends[at]

    def _scan(self, at: int) -> None:
        """Extends the index up to the end of the element that starts at `at`."""
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
                raise _error(text[:tag], f"elements nested deeper than {MAX_DEPTH}")
            elif (following < 0 or find("/>", tag, following) >= 0) and (
                text[self.behind(tag) - 2] == "/"
            ):
                ends[tag] = tag
            else:
                opened.append(tag)
            tag = following
        self._next = tag

    def behind(self, at: int) -> int:
        """Returns the position after the tag that starts at `at`."""
        return _value_places(self.text, at)[1]

    def element(self, at: int, depth: int, end: int) -> tuple[Element, int]:
        """Returns the element with these tag positions, and the position after it."""
        text, inside = self.text, self.behind(at)
        start = text[at:inside]
        if end == at:
            name = start[1:].split(None, 1)[0].rstrip("/>")
            return Element(name, start, [], "", depth), inside
        behind = text.index(">", end) + 1
        tag, content = text[end:behind], _Unread(self, inside, end)
        return Element(tag[2:-1].rstrip(SPACE), start, content, tag, depth), behind


class _Unread:
    """The unparsed content of an element. Child elements are parsed when callers ask for them."""

    __slots__ = ("_end", "_found", "_whole", "begin")

    def __init__(self, whole: _Text, begin: int, end: int) -> None:
        self._whole, self.begin, self._end = whole, begin, end
        # Parsed child elements with their end positions, by start position.
        self._found: dict[int, tuple[Element, int]] = {}

    def element_from(self, at: int, name: str, depth: int) -> tuple[Element | None, int]:
        """Returns the next child element, from `at` on, whose name starts with `name`, and the
        position after it. `depth` is the depth of that element."""
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
        """Parses all of the content."""
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
    """Returns the position of the final > of a comment, CDATA section or instruction, or -1."""
    if text.startswith("<?", at):
        closing, begin = "?>", 2
    elif text.startswith("<!--", at):
        closing, begin = "-->", 4
    else:
        closing, begin = "]]>", 9
    end = text.find(closing, at + begin)
    return end if end < 0 else end + len(closing) - 1


def _value_places(text: str, begin: int) -> tuple[list[tuple[int, int]], int]:
    """Returns the ranges of a tag's attribute values, with quotes, and the position after the
    tag."""
    values = []
    end = text.index(">", begin)
    at = text.find("=", begin, end)  # outside of values, each = is followed by a value
    while at >= 0:
        at += 1
        while text[at] in SPACE:
            at += 1
        first, at = at, text.index(text[at], at + 1) + 1
        values.append((first, at))
        if end < at:  # that > was inside a value
            end = text.index(">", at)
        at = text.find("=", at, end)
    return values, end + 1


def _resolved(written: str) -> str:
    """Returns the text of a node that is not an element."""
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
        raise ValueError("the text has a character that XML does not allow")
    return escaped


def _checked(name: str) -> str:
    if not (name.isascii() and name.isidentifier()) and _first_name(f"<{name}/>") != name:
        raise ValueError("invalid name of an element or attribute")
    return name


def _first_name(document: str) -> str | None:
    """Returns the name of the root, or `None` if the document is not well-formed."""
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
