# kubevirt_xml of kubevirt-hook 0.1.0 for Python. May be copied: it needs no other file.
"""Edits XML documents and keeps every byte that is not edited.

    import kubevirt_xml

    doc = kubevirt_xml.parse(domain)
    doc.ensure("os/smbios").set("mode", "sysinfo")
    for disk in doc.find_all("devices/disk[@device='disk']"):
        disk.ensure("driver").set("discard", "unmap")
    return str(doc)

White space, comments, quotes and the order of attributes are kept. docs/editing-xml.md defines the
paths, and what is written where; README.md has the interface on one page. This file needs only
Python 3.9 or later.

Theory of operation: expat checks the document. Its text is then read on demand: an `Element` has
its tags as they are written, and its content as an `_Unread` range of the text until something in
there is asked for. A change of an attribute takes the tag apart; another one turns the range into
`_Children`. Each change takes a time that does not depend on how many children or attributes there
are.
"""

from __future__ import annotations

from _thread import allocate_lock
from _weakref import ref
from xml.parsers.expat import ErrorString, ExpatError, ParserCreate

# Starting the hook delays the VM's start, so `typing` is not imported. Type checkers treat this
# name as typing.TYPE_CHECKING.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TypeVar, overload
    from xml.parsers.expat import XMLParserType

    E = TypeVar("E", bound=Exception)

    # An attribute in a step: its name as written, the namespace, the name alone, the value.
    Predicate = tuple[str, str, str, str]
else:

    def overload(function: object) -> object:
        return function


__version__ = "0.1.0"
__all__ = ["Document", "Element", "PathError", "XmlError", "parse"]

# Maximum nesting depth of elements, which the shim enforces: libxml2, which libvirt uses, has about
# the same.
MAX_DEPTH = 255

# Length of the text in which tags are counted at once, to see how deeply elements are nested. So
# much of an ordinary domain has far fewer than MAX_DEPTH elements.
BLOCK = 4096

# Number of colons beyond which they are not rare in a document.
MANY = 1000

# What the prefix `xml` always means, and the namespace of declarations.
XML, XMLNS = "http://www.w3.org/XML/1998/namespace", "http://www.w3.org/2000/xmlns/"
# Prefixes that paths know. Every libvirt document may have QEMU's.
NAMESPACES = {"qemu": "http://libvirt.org/schemas/domain/qemu/1.0", "xml": XML}

# The declarations of a tag without declarations.
NO_DECLARATIONS: dict[str, str] = {}

SPACE = " \t\r\n"
NAME_CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789-."
FIRST_CHARACTERS = NAME_CHARACTERS[:53]
TEXT_ESCAPES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
# Parsers normalize unescaped white space in attributes to spaces.
VALUE_ESCAPES = {**TEXT_ESCAPES, **str.maketrans({"\t": "&#9;", "\n": "&#10;"})}
QUOTE_ESCAPES = {'"': "&quot;", "'": "&apos;"}

# Of expat: an undeclared prefix. KubeVirt leaves such in <metadata>.
UNBOUND_PREFIX = 27


class XmlError(ValueError):
    """An invalid document. The message has the position and the reason, and quotes nothing."""


class PathError(ValueError):
    """An invalid path or name: a mistake in the program."""

    def __init__(self, kind: str, path: str, what: str, harmless: str = "") -> None:
        super().__init__(f'{kind} "{path}": {what}')
        # For logs. A program may have formatted a value from outside into the path.
        self._harmless = harmless or what


def _mistake(error: E, harmless: str = "") -> E:
    """Gives an error words for logs, its own unless stated: those quote nothing from outside."""
    vars(error)["_harmless"] = harmless or str(error)
    return error


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

    def namespace(self, prefix: str, uri: str) -> None:
        """Adds a prefix for paths and names of attributes. A prefix stands for one namespace."""
        if not prefix or _name_end(prefix, 0) != len(prefix):
            raise PathError("prefix", prefix, "it is not a name")
        source = self.root._source
        known = source.prefixes.get(prefix)
        if known == uri:
            return
        if known is not None or prefix == "xmlns":
            raise PathError("prefix", prefix, "it stands for another namespace")
        if uri in (XML, XMLNS):
            raise PathError("prefix", prefix, "XML reserves this namespace")
        try:
            _checked(uri)
        except ValueError:
            uri = ""
        if not uri:
            raise PathError("prefix", prefix, "its namespace is empty, or XML cannot hold it")
        source.prefixes[prefix], source.declared = uri, None

    def find(self, path: str, *values: str) -> Element | None:
        """Returns the first element with this path below the root, or `None`."""
        return self.root.find(path, *values)

    def find_all(self, path: str, *values: str) -> list[Element]:
        """Returns all elements with this path below the root, in the order of the document."""
        return self.root.find_all(path, *values)

    def ensure(self, path: str, *values: str) -> Element:
        """Returns the first element with this path below the root, and adds what is missing."""
        return self.root.ensure(path, *values)

    def append(self, step: str, *values: str) -> Element:
        """Adds an element after the last child of the root."""
        return self.root.append(step, *values)


class Element:
    """One element of a document. It stays valid while the document is edited. Keep the document
    as long as you use its elements."""

    __slots__ = ("__weakref__", "_at", "_attributes", "_before", "_content", "_declared", "_depth",
                 "_end", "_gone", "_indent", "_next", "_outer", "_parts", "_prefixes", "_previous",
                 "_source", "_start", "_tag", "_tail")  # fmt: skip
    if TYPE_CHECKING:
        # They are set where the parent's content has been parsed: the elements beside this one, and
        # the texts, comments, … before it.
        _next: Element | None
        _previous: ref[Element] | None  # a strong one would be a cycle
        _before: list[str]
        _tail: str

    def __init__(self, source: _Source, parent: Element | None, tag: str, start: str) -> None:
        self._source = source
        # A strong reference would be a cycle, and keep each document until the next collection.
        self._outer = ref(parent) if parent else None
        self._tag = tag  # the name as written, with its prefix
        # The tags in their written form; the end of <a/> is empty.
        self._start, self._end = start, ""
        # Once attributes have changed: these in their written form, with the white space before
        # them, by name. `_start` ends before them then, and `_tail` follows them.
        self._parts: dict[str, str] | None = None
        self._content: _Children | _Unread | None = None
        self._depth: int = parent._depth + 1 if parent else 1  # of the root: 1
        # Attributes and declarations, the declarations among them, and the attributes' prefixes.
        self._attributes: dict[str, str] | None = None
        self._declared: dict[str, str] | None = None if "xmlns" in start else NO_DECLARATIONS
        self._prefixes: set[str] | None = None
        self._gone = False  # whether it was removed
        self._at = -1  # the position in the source
        # If it is on its own line, the white space before it, from the line break on. `None`: it is
        # not; "": not known yet.
        self._indent: str | None = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    def name(self) -> str:
        """The name without prefix."""
        return self._tag.rpartition(":")[2]

    @property
    def namespace(self) -> str:
        """The namespace, or an empty string."""
        uri = self._namespace()
        return "" if uri.startswith("\0") else uri

    @property
    def _parent(self) -> Element | None:
        return self._outer() if self._outer else None

    @property
    def parent(self) -> Element | None:
        """The element around it. `None` for the root, and for a removed element."""
        return None if self._gone else self._parent

    # ---- elements

    def find(self, path: str, *values: str) -> Element | None:
        """Returns the first element with this path below this one, or `None`."""
        return next(self._matches(_steps(self, path, values), 0), None)

    def find_all(self, path: str, *values: str) -> list[Element]:
        """Returns all elements with this path below this one, in the order of the document."""
        return list(self._matches(_steps(self, path, values), 0))

    def ensure(self, path: str, *values: str) -> Element:
        """Returns the first element with this path below this one. If there is none, adds what is
        missing."""
        steps = _steps(self, path, values)
        for there in range(len(steps), -1, -1):
            found = next(self._matches(steps[:there], 0), None)
            if found:
                return found._add(path, steps[there:])
        raise AssertionError("no step always matches")

    def append(self, step: str, *values: str) -> Element:
        """Adds an element after the last child, on a new line if that one is on its own line."""
        return self._add(step, [_step(self, step, values)])

    def insert_before(self, step: str, *values: str) -> Element:
        """Adds an element before this one, on a new line if this one is on its own line."""
        wanted = _step(self, step, values)
        parent = self._parent
        if self._depth == 1:
            raise _mistake(ValueError("nothing can stand before the root"))
        wanted.check(step, self._depth)
        if self._gone or parent is None:
            # It goes nowhere; its prefixes mean what they do here.
            new = Element(self._source, self, "", "")
            new._gone, new._before = True, []
        else:
            new = Element(self._source, parent, "", "")
            children = parent._children()
            new._indent = indent = self._indentation()
            new._before, self._before = self._before, [indent] if indent else []
            children.link(new, self)
        new._begin(wanted)
        return new

    def remove(self) -> None:
        """Removes this element and the white space before it."""
        parent = self._parent
        if self._depth == 1:
            raise _mistake(ValueError("the root cannot be removed"))
        if self._gone or parent is None:
            return
        children = parent._children()
        following, before = self._next, self._before
        if before and _is_space(before[-1]):
            del before[-1]
        children.unlink(self)
        self._gone, self._before = True, []
        if following:
            following._before = _joined(before, following._before)
            following._indent = ""
        else:
            children.inside = _joined(before, children.inside)

    # ---- attributes and text

    @overload
    def get(self, name: str, /) -> str | None: ...

    @overload
    def get(self, name: str, default: str, /) -> str: ...  # noqa: F811

    def get(self, name: str, default: str | None = None, /) -> str | None:  # noqa: F811
        """Returns an attribute's value, or `default`."""
        written = self._written(*_attribute(self, name))
        return default if written is None else self._values()[written]

    def set(self, name: str, value: str, /) -> None:
        """Sets an attribute. Changes nothing if it already has this value."""
        uri, local = _attribute(self, name)
        _checked(value)
        written = self._written(uri, local)
        if written is None:
            self._set_new(self._prefixed(name, uri, local) if uri else local, value)
            return
        values = self._values()
        if values[written] != value:
            parts = self._split()
            part = parts[written]
            quote = part[-1]
            parts[written] = part[: part.index(quote)] + _quoted(value, quote)
            values[written] = value

    def remove_attribute(self, name: str, /) -> None:
        """Removes an attribute and the white space before it. Changes nothing without it."""
        written = self._written(*_attribute(self, name))
        if written is not None:
            del self._split()[written]
            del self._values()[written]

    @property
    def attributes(self) -> dict[str, str]:
        """A copy of the attributes: names as they are written, and values, in their order."""
        values = self._values()
        return {name: value for name, value in values.items() if not _is_declaration(name)}

    @property
    def text(self) -> str:
        """The element's own text, without child elements and comments, with references resolved.

        Setting it replaces the content. Changes nothing if the content is already this text."""
        children = self._children()
        pieces = [piece for child in children for piece in child._before]
        return "".join(map(_resolved, pieces + children.inside))

    @text.setter
    def text(self, text: str) -> None:
        _checked(text)
        children = self._children()
        is_text = not any(it.startswith(("<!--", "<?")) for it in children.inside)
        if is_text and children.first is None and self.text == text:
            return
        self._open()
        for child in list(children):
            child._gone, child._before = True, []
            child._next = child._previous = None
        children.first = children.last = None
        children.inside = [text.translate(TEXT_ESCAPES)] if text else []

    # ---- finding

    def _matches(self, steps: list[_Step], number: int) -> Iterator[Element]:
        """Yields the elements below this one that the steps from this number on lead to."""
        if number == len(steps):
            yield self
            return
        step = steps[number]
        default = self._lookup("") if step.name != "*" else ""
        last = number + 1 == len(steps)
        for child in self._candidates(step):
            if child._is(step, default):
                if last:
                    yield child
                else:
                    yield from child._matches(steps, number + 1)

    def _candidates(self, step: _Step) -> Iterator[Element]:
        """Yields child elements, at least all that the step can match."""
        content = self._content
        if isinstance(content, _Unread):
            yield from content.children(self, step)
        elif content:
            yield from content

    def _is(self, step: _Step, default: str) -> bool:
        """Whether a step matches this element. `default` is the parent's default namespace."""
        if step.name != "*":
            tag = self._tag
            if tag == step.name:
                uri = default if self._declared is NO_DECLARATIONS else self._lookup("")
                if uri != step.uri:
                    return False
            elif not tag.endswith(step.suffix) or self._namespace() != step.uri:
                return False
        for _, uri, local, value in step.predicates:
            if uri:
                name = self._written(uri, local)
                if name is None or self._values()[name] != value:
                    return False
            elif self._values().get(local) != value:
                return False
        return True

    # ---- namespaces

    def _namespace(self) -> str:
        return self._lookup(self._tag.rpartition(":")[0])

    def _lookup(self, prefix: str) -> str:
        """Returns the namespace of a prefix. An undeclared and unknown prefix has one that is
        unlike all others."""
        name = f"xmlns:{prefix}" if prefix else "xmlns"
        element: Element | None = self
        while element:
            declared = element._declared
            if declared is None:
                declared = element._declarations()
            if declared:
                uri = declared.get(name)
                if uri is not None:
                    return uri
            element = element._parent
        return self._source.prefixes.get(prefix, f"\0{prefix}") if prefix else ""

    def _written(self, uri: str, local: str) -> str | None:
        """Returns the written name of an attribute, or `None` if it is not there."""
        values = self._values()
        if not uri:
            return local if local in values else None
        prefixes = self._prefixes
        if prefixes is None:
            found = {name.partition(":")[0] for name in values if ":" in name}
            prefixes = self._prefixes = found - {"xmlns"}
        for prefix in prefixes:
            name = f"{prefix}:{local}"
            if name in values and (XML if prefix == "xml" else self._lookup(prefix)) == uri:
                return name
        return None

    def _prefixed(self, name: str, uri: str, local: str) -> str:
        """Returns an attribute's name with a prefix for its namespace, declared if need be."""
        prefix = name.rpartition(":")[0]
        if self._declares(prefix, uri):
            return name
        return f"{self._nearest(uri) or self._declare(prefix, uri)}:{local}"

    def _declares(self, prefix: str, uri: str) -> bool:
        """Whether a prefix is declared here for this namespace."""
        if prefix == "xml":
            return uri == XML
        name = f"xmlns:{prefix}" if prefix else "xmlns"
        for element in self._ancestors(beyond=True):
            said = element._declarations().get(name)
            if said is not None:
                return said == uri
        return not uri

    def _nearest(self, uri: str) -> str | None:
        """Returns the nearest prefix that is declared for a namespace here, or `None`."""
        hidden: set[str] = set()
        for element in self._ancestors(beyond=True):
            declared = element._declarations()
            for name, said in declared.items():
                if said == uri and name not in hidden and name != "xmlns":
                    return name[6:]
            hidden.update(declared)
        return "xml" if uri == XML else None

    def _declare(self, prefix: str, uri: str) -> str:
        """Declares a prefix for a namespace, at the root if possible. Returns the prefix."""
        above = list(self._ancestors())
        if not any(f"xmlns:{prefix}" in element._declarations() for element in above):
            above[-1]._set_new(f"xmlns:{prefix}", uri)
            return prefix
        # In this tag or below, the prefix may be in use for that other namespace.
        known, number = set(self._source.prefixes), 1
        for element in self._ancestors(beyond=True):
            known.update(name[6:] for name in element._declarations())
        while f"{prefix}{number}" in known:
            number += 1
        self._set_new(f"xmlns:{prefix}{number}", uri)
        return f"{prefix}{number}"

    def _ancestors(self, *, beyond: bool = False) -> Iterator[Element]:
        """Yields this element and those around it; with `beyond`, also those around a removed
        one."""
        element: Element | None = self
        while element:
            yield element
            element = None if element._gone and not beyond else element._parent

    def _declarations(self) -> dict[str, str]:
        """Returns the declarations in the tag, by their names."""
        declared = self._declared
        if declared is None:
            declared = {name: uri for name, uri in self._values().items() if _is_declaration(name)}
            self._declared = declared  # whole, because other threads may read it
        return declared

    # ---- writing

    def _add(self, path: str, steps: list[_Step]) -> Element:
        """Adds the elements of these steps below each other. Returns the innermost."""
        for number, step in enumerate(steps, 1):
            step.check(path, self._depth + number)
        element = self
        for step in steps:
            element = element._append(step)
        return element

    def _append(self, step: _Step) -> Element:
        self._open()
        new = Element(self._source, self, "", "")
        new._before = []
        content = self._content
        if isinstance(content, _Unread) and content.append(self, new):
            new._begin(step)
            return new
        children = self._children()
        if children.last:
            new._indent = indent = children.last._indentation()
            new._before = [indent] if indent else []
        elif all(map(_is_space, children.inside)):
            self._append_first(new, children)
        else:
            # The end of that may be white space behind a comment.
            new._before, children.inside = children.inside, []
        children.link(new, None)
        new._begin(step)
        return new

    def _append_first(self, new: Element, children: _Children) -> None:
        """Finds the white space around the first child of an element that has nothing else."""
        new._indent = None
        parent = self._parent
        own, outer = self._indentation(), parent and parent._indentation()
        if own and outer and own != outer and own.startswith(outer):
            new._indent = own + own[len(outer) :]
            new._before = [new._indent]
            space = "".join(children.inside)
            children.inside = [space if "\n" in space else space + own]

    def _begin(self, step: _Step) -> None:
        """Writes the tags of a new element, which has its place already."""
        name, uri, declared = step.name, step.uri, ""
        parent = self._parent
        assert parent
        if uri.startswith("\0"):  # like an element with an undeclared prefix
            name = f"{uri[1:]}:{name}"
        elif not parent._declares(step.prefix, uri):
            # Neither the prefix of the path stands for the namespace, …
            near = "" if parent._declares("", uri) else parent._nearest(uri)
            if near is not None:
                name = f"{near}:{name}" if near else name
            elif step.prefix:
                above = list(parent._ancestors())
                if any(f"xmlns:{step.prefix}" in it._declarations() for it in above):
                    declared = f"xmlns:{step.prefix}"
                else:
                    above[-1]._set_new(f"xmlns:{step.prefix}", uri)
                name = f"{step.prefix}:{name}"
            else:
                declared = "xmlns"
        elif step.prefix:
            name = f"{step.prefix}:{name}"
        self._tag, self._start, self._end = name, f"<{name}>", f"</{name}>"
        self._attributes = {}
        if declared:
            self._set_new(declared, uri)
        for attribute, of, local, value in step.predicates:
            self._set_new(self._prefixed(attribute, of, local) if of else local, value)

    def _set_new(self, written: str, value: str) -> None:
        """Adds an attribute, or a declaration, after the last one."""
        self._split()[written] = f" {written}={_quoted(value, QUOTE)}"
        self._values()[written] = value
        if _is_declaration(written):
            if self._declared is NO_DECLARATIONS:
                self._declared = {}
            self._declarations()[written] = value
        elif ":" in written and self._prefixes is not None:
            self._prefixes.add(written.partition(":")[0])

    def _split(self) -> dict[str, str]:
        """Takes the tag apart. Returns its attributes and declarations in their written form."""
        parts = self._parts
        if parts is None:
            start, names = self._start, list(self._values())
            begin = 1 + len(self._tag)
            self._start, parts = start[:begin], {}
            for name, (_, end) in zip(names, _value_places(start, 0)[0]):
                parts[name] = start[begin:end]
                begin = end
            self._parts, self._tail = parts, start[begin:]
        return parts

    def _open(self) -> None:
        """Turns <a/> into <a></a>."""
        if not self._end:
            if self._parts is None:
                self._start = self._start[:-2].rstrip(SPACE) + ">"
            else:
                self._tail = ">"
            self._end = f"</{self._tag}>"

    def _indentation(self) -> str | None:
        """Returns the white space before this element, from the line break on, if it is on its own
        line."""
        if self._indent == "":
            parent = self._parent
            if parent is None:
                self._indent = "\n" if self._depth == 1 else None  # the root counts as such
            elif self._source.is_plain and isinstance(parent._content, _Unread):
                self._indent = _line(
                    self._source.text, self._source.behind_tag_before(self._at), self._at
                )
            else:
                parent._children()
                last = self._before[-1] if self._before else ""
                self._indent = _line(last, 0, len(last))
        return self._indent

    def _values(self) -> dict[str, str]:
        """Returns the attributes and declarations with their values, in document order."""
        values, start = self._attributes, self._start
        if values is None:
            values = {}
            quote = "'" if '"' not in start else '"'
            if "&" in start or not start.isprintable() or (quote == '"' and "'" in start):
                parser = ParserCreate("utf-8")
                parser.StartElementHandler = lambda _, attributes: values.update(attributes)
                parser.Parse(start + (self._end and f"</{self._tag}>"), True)
            elif quote in start:  # one kind of quotes, and no references
                parts = start.split(quote)
                names = [part.rstrip(" =").rpartition(" ")[2] for part in parts[:-1:2]]
                values.update(zip(names, parts[1::2]))
            self._attributes = values  # whole, because other threads may read it
        return values

    def _children(self) -> _Children:
        """Returns the content, parsed."""
        content = self._content
        if isinstance(content, _Unread):
            content = self._content = content.parsed(self)
        elif content is None:
            content = self._content = _Children()
        return content

    def _write(self, parts: list[str]) -> None:
        parts.append(self._start)
        if self._parts is not None:
            parts += self._parts.values()
            parts.append(self._tail)
        if self._content:
            self._content.write(parts)
        parts.append(self._end)


class _Children:
    """The parsed content of an element. Texts, comments, … are in their written form."""

    __slots__ = ("first", "inside", "last")

    def __init__(self) -> None:
        self.first: Element | None = None
        self.last: Element | None = None
        self.inside: list[str] = []  # what follows the last child

    def __iter__(self) -> Iterator[Element]:
        child = self.first
        while child:
            yield child
            child = child._next

    def link(self, new: Element, following: Element | None) -> None:
        """Adds a child before another one, or as the last one."""
        previous = _beside(following._previous) if following else self.last
        new._previous, new._next = ref(previous) if previous else None, following
        if previous:
            previous._next = new
        else:
            self.first = new
        if following:
            following._previous = ref(new)
        else:
            self.last = new

    def unlink(self, old: Element) -> None:
        """Takes a child out."""
        previous, following = _beside(old._previous), old._next
        if previous:
            previous._next = following
        else:
            self.first = following
        if following:
            following._previous = old._previous
        else:
            self.last = previous
        old._previous = old._next = None

    def write(self, parts: list[str]) -> None:
        for child in self:
            parts += child._before
            child._write(parts)
        parts += self.inside


# ---- paths ----


class _Step:
    """One step of a path."""

    __slots__ = ("name", "predicates", "prefix", "suffix", "uri")

    def __init__(self, prefix: str, name: str, uri: str) -> None:
        self.prefix, self.name, self.uri = prefix, name, uri
        self.suffix = f":{name}"
        self.predicates: list[Predicate] = []

    def hint(self) -> str:
        """Returns a text that each matching tag has, as far as it uses no references."""
        for _, _, _, value in self.predicates:
            if value.isalnum():
                return value
        return ""

    def check(self, path: str, depth: int) -> None:
        """Checks that an element can be added for this step, at this depth."""
        if self.name == "*":
            raise PathError("path", path, '"*" is not the name of a new element')
        if depth > MAX_DEPTH:
            raise _mistake(ValueError(f"elements nested deeper than {MAX_DEPTH}"))
        names = set()
        for written, uri, local, value in self.predicates:
            _checked(value)
            if (uri, local) in names:
                raise PathError("path", path, f'a new element cannot have "{written}" twice')
            names.add((uri, local))


def _step(element: Element, path: str, values: tuple[str, ...]) -> _Step:
    """Reads a path that must be one step."""
    [step] = _steps(element, path, values, single=True)
    step.check(path, 0)
    return step


def _steps(
    element: Element, path: str, values: tuple[str, ...], *, single: bool = False
) -> list[_Step]:
    """Reads a path, which is asked of this element."""
    source, steps, at = element._source, [], 0
    rest = list(values)
    while True:
        if path.startswith("*", at):
            step, at = _Step("", "*", ""), at + 1
        else:
            prefix, local, at = _qualified(path, at)
            step = _Step(
                prefix, local, source.uri(path, prefix) if prefix else element._namespace()
            )
        while path.startswith("[", at):
            at = _predicate(step, source, path, at + 1, rest)
        steps.append(step)
        if at == len(path):
            break
        if path[at] != "/":
            raise _unexpected(path, at, '"/" or "[" expected')
        if single:
            raise _unexpected(path, at, "only one step expected")
        at += 1
    if rest:
        used = len(values) - len(rest)
        raise PathError("path", path, f'it has {used} "?", but {len(values)} arguments were given')
    return steps


def _predicate(step: _Step, source: _Source, path: str, begin: int, values: list[str]) -> int:
    """Reads a predicate from behind its bracket. Takes its value from `values` if that is "?".
    Returns the position behind it."""
    if not path.startswith("@", begin):
        raise _unexpected(path, begin, '"@" expected')
    prefix, local, at = _qualified(path, begin + 1)
    name = path[begin + 1 : at]
    if _is_declaration(name):
        raise PathError("path", path, f'"{name}" is a declaration, not an attribute')
    if not path.startswith("=", at):
        raise _unexpected(path, at, '"=" expected')
    quote, end = path[at + 1 : at + 2], at + 1
    if quote == "?":
        if not values:
            count = path.count("?")
            raise PathError("path", path, f'it has {count} "?", and too few arguments were given')
        value = values.pop(0)
    elif quote and quote in "\"'":
        end = path.find(quote, at + 2)
        if end < 0:
            raise _unexpected(path, at + 1, "the value has no end")
        value = path[at + 2 : end]
    else:
        raise _unexpected(path, at + 1, 'a value in quotes or "?" expected')
    if not path.startswith("]", end + 1):
        raise _unexpected(path, end + 1, '"]" expected')
    if not isinstance(value, str):
        kind = f"must be a str, not {type(value).__name__}"
        raise _mistake(TypeError(f"the value of {name} {kind}"), f"a value {kind}")
    step.predicates.append((name, source.uri(path, prefix) if prefix else "", local, value))
    return end + 2


def _attribute(element: Element, name: str) -> tuple[str, str]:
    """Reads the name of an attribute. Returns its namespace, and the name without prefix."""
    if name.isidentifier() and name.isascii() and name != "xmlns":
        return "", name
    prefix, local, end = _qualified(name, 0)
    if end != len(name):
        raise _unexpected(name, end, "it is not part of a name", "name")
    if _is_declaration(name):
        raise PathError("name", name, "a declaration is not an attribute")
    return element._source.uri(name, prefix, "name") if prefix else "", local


def _qualified(path: str, at: int) -> tuple[str, str, int]:
    """Reads a name with or without a prefix. Returns both, and the position behind them."""
    end = _name_end(path, at)
    if end == at:
        raise _unexpected(path, at, "a name expected")
    if not path.startswith(":", end):
        return "", path[at:end], end
    last = _name_end(path, end + 1)
    if last == end + 1:
        raise _unexpected(path, last, "a name expected")
    if path.startswith(":", last):
        raise _unexpected(path, last, "a name has one prefix")
    return path[at:end], path[end + 1 : last], last


def _name_end(path: str, at: int) -> int:
    """Returns the position behind the name at `at`, or `at` if there is none."""
    length = len(path)
    if at < length and path[at] in FIRST_CHARACTERS:
        at += 1
        while at < length and path[at] in NAME_CHARACTERS:
            at += 1
    return at


def _unexpected(path: str, at: int, wanted: str, kind: str = "path") -> PathError:
    found = f'"{path[at]}" at' if at < len(path) else "the end, at"
    place = f"character {at + 1}: {wanted}"
    return PathError(kind, path, f"{found} {place}", place)


def _is_declaration(name: str) -> bool:
    return name.startswith("xmlns") and (name == "xmlns" or name[5] == ":")


# ---- reading ----


def parse(document: str | bytes) -> Document:
    """Parses a document, which must be well-formed, in UTF-8, and without a document type."""
    if not isinstance(document, str):
        try:
            document = document.decode()
        except UnicodeDecodeError:
            raise XmlError("the document is not UTF-8") from None
    at = _root(document)
    # With a separator that no namespace can have, expat checks prefixes as well.
    parser = ParserCreate("utf-8", "")
    parser.XmlDeclHandler = _check_declaration
    try:
        try:
            parser.Parse(document, True)
        except ExpatError as error:
            if error.code != UNBOUND_PREFIX:
                raise
            parser = ParserCreate("utf-8")
            _check_prefixes(document, at, parser)
    except ExpatError as error:
        before = document.encode()[: parser.ErrorByteIndex].decode(errors="replace")
        raise _error(before, ErrorString(error.code)) from None
    except UnicodeEncodeError as error:
        raise _error(document[: error.start], "a lone surrogate") from None
    # Searching for one character is much faster than for two.
    is_plain = ("!" not in document or "<!" not in document) and (
        "?" not in document or "<?" not in document
    )
    source = _Source(document, at, is_plain)
    end = document.rindex("<") if is_plain else source.end(at)
    root, behind = source.element(None, at, end)
    return Document(document[:at], root, document[behind:])


def _check_declaration(version: str, encoding: str | None, _: int) -> None:
    """Checks the XML declaration as the shim does. libxml2 and Go refuse other versions, or other
    encodings than that of the document."""
    if version != "1.0" or (encoding or "utf-8").lower() != "utf-8":
        raise _error("", "the XML declaration has another version than 1.0, or is not for UTF-8")


def _check_prefixes(document: str, at: int, parser: XMLParserType) -> None:
    """Checks a document that uses undeclared prefixes, as if they were declared around it."""
    prefixes: set[str] = set()

    def collect(name: str, attributes: dict[str, str]) -> None:
        prefixes.update(it.partition(":")[0] for it in (name, *attributes) if ":" in it)

    parser.StartElementHandler = collect
    parser.Parse(document, True)
    names = [
        f" xmlns:{it}='urn:undeclared:{it}'" for it in prefixes if it not in ("xml", "xmlns", "")
    ]
    parser = ParserCreate("utf-8", "")
    parser.Parse(f"<a{''.join(names)}>", False)
    before = parser.CurrentByteIndex
    try:
        parser.Parse(f"{document[at:]}</a>", True)
    except ExpatError as error:
        tag = document[at:].encode()[: parser.ErrorByteIndex - before].decode(errors="replace")
        raise _error(document[:at] + tag, ErrorString(error.code)) from None


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


class _Source:
    """The text of a well-formed document, and an index of where its elements end. The index grows
    from the start of the document, as far as callers ask."""

    __slots__ = ("_ends", "_lock", "_next", "_opened", "declared", "is_plain", "is_tidy",
                 "prefixes", "text")  # fmt: skip

    def __init__(self, text: str, root: int, is_plain: bool) -> None:
        # Plain: there is nothing but elements and text. Tidy: each > ends a tag, as well.
        self.text, self.is_plain, self.is_tidy = text, is_plain, False
        self.prefixes = dict(NAMESPACES)
        self.declared: tuple[str, ...] | None = None
        self._next = root
        self._ends: dict[int, int] = {}
        self._opened: list[int] = []
        self._lock = allocate_lock()  # threads may read one document
        if is_plain:
            tags = text.count("<")
            if tags < 2 * MAX_DEPTH:  # all elements but the innermost have two
                self.is_tidy = text.count(">") == tags
                return
            if self._is_shallow("") or (self.is_tidy and self._is_shallow("/>")):
                return
        self.end(root)

    def uri(self, path: str, prefix: str, kind: str = "path") -> str:
        """Returns the namespace of a prefix in a path or name."""
        uri = self.prefixes.get(prefix)
        if uri is None:
            known = "" if prefix == "xmlns" else "; doc.namespace adds prefixes"
            raise PathError(kind, path, f'unknown prefix "{prefix}"{known}')
        return uri

    def written(self, step: _Step) -> tuple[str, ...]:
        """Returns how tags begin that a step can match."""
        if step.name == "*":
            return ("",)
        declared = self.declared
        if declared is None:
            found, text = set(self.prefixes), self.text
            at, hits = text.find(":"), 0
            while at >= 0:
                if text.endswith("xmlns", 0, at):
                    found.add(text[at + 1 : text.find("=", at)].rstrip(SPACE))
                # Searching for one character is much faster than for several, if it is rare.
                hits += 1
                at = text.find(":" if hits < MANY else "xmlns:", at + 1)
                at += 5 if at >= 0 and hits >= MANY else 0
            declared = self.declared = tuple(f"{prefix}:" for prefix in found)
        if step.uri.startswith("\0"):
            declared = (*declared, f"{step.uri[1:]}:")
        return (step.name, *(prefix + step.name for prefix in declared))

    def _is_shallow(self, short: str) -> bool:
        """Whether counting tags is enough to know that elements are not nested too deeply, either
        with all elements or without `short` ones. Also finds out whether the text is tidy."""
        text, begin, length = self.text, 0, len(self.text)
        depth = deepest = rest = 0
        while begin < length:
            last = begin + BLOCK
            opening = text.count("<", begin, last)
            rest += text.count(">", begin, last) - opening
            closing = text.count("</", begin, last + 1)
            opening -= closing
            deepest = max(deepest, depth + opening)
            depth += opening - closing
            # The next block begins with a tag, so that none is cut. A long text is skipped.
            end = text.find("<", last)
            end = length if end < 0 else end
            depth -= text.count(short, begin, end) if short else 0
            while (last := text.find(">", last, end) + 1) > 0:
                rest += 1
            begin = end
        self.is_tidy = not rest
        return deepest <= MAX_DEPTH and not (short and depth)

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
        return self.text.index(">", at) + 1 if self.is_tidy else _value_places(self.text, at)[1]

    def behind_tag_before(self, at: int) -> int:
        """Returns the position after the tag before `at`, in a plain document."""
        return self.behind(self.text.rindex("<", 0, at))

    def element(self, parent: Element | None, at: int, end: int) -> tuple[Element, int]:
        """Returns the element with these tag positions, and the position after it."""
        text, inside = self.text, self.behind(at)
        start = text[at:inside]
        if end == at:
            name = start[1:].split(None, 1)[0].rstrip("/>")
            element, behind = Element(self, parent, name, start), inside
        else:
            behind = text.index(">", end) + 1
            tag = text[end:behind]
            element = Element(self, parent, tag[2:-1].rstrip(SPACE), start)
            element._content, element._end = _Unread(self, inside, end), tag
        element._at = at
        return element, behind


class _Unread:
    """The unparsed content of an element. Child elements are parsed when callers ask for them."""

    __slots__ = ("_begin", "_end", "_found", "_last", "_new", "_source")

    def __init__(self, source: _Source, begin: int, end: int) -> None:
        self._source, self._begin, self._end = source, begin, end
        # Parsed child elements with their end positions, by start position.
        self._found: dict[int, tuple[Element, int]] = {}
        self._new: list[Element] = []  # behind the last child of the text
        self._last = -1

    def children(self, parent: Element, step: _Step) -> Iterator[Element]:
        """Yields the child elements that a step can match, and perhaps others."""
        source, text, end = self._source, self._source.text, self._end
        names, hint = source.written(step), step.hint() if source.is_tidy else ""
        at = self._begin
        while (at := text.find("<", at, end)) >= 0:
            if text[at + 1] in "!?":
                at = _find_end(text, at) + 1
            elif (
                text.startswith(names, at + 1)
                and (
                    not hint
                    or at in self._found  # it may have changed
                    or hint in (tag := text[at : text.index(">", at)])
                    or "&" in tag
                )
            ):
                element, at = self._element(parent, at)
                yield element
            else:
                at = source.end(at) + 1
        yield from self._new

    def _element(self, parent: Element, at: int) -> tuple[Element, int]:
        found = self._found.get(at)
        if found is None:
            # Another thread may have done the same meanwhile.
            found = self._found.setdefault(
                at, self._source.element(parent, at, self._source.end(at))
            )
        return found

    def append(self, parent: Element, new: Element) -> bool:
        """Adds an element after the last child, if that can be done without parsing all."""
        if not self._source.is_plain:
            return False
        if self._last < 0:
            at = self._last_child()
            if at < 0:
                return False
            element, self._last = self._element(parent, at)
            indent = element._indentation()
        else:
            indent = self._new[-1]._indentation()
        new._indent, new._before = indent, [indent] if indent else []
        self._new.append(new)
        return True

    def _last_child(self) -> int:
        """Returns where the last child element starts, or -1."""
        text, depth, at = self._source.text, 0, self._end
        while (at := text.rfind("<", self._begin, at)) >= 0:
            if text[at + 1] == "/":
                depth += 1
            elif text[self._source.behind(at) - 2] != "/":
                depth -= 1
            if not depth:
                return at
        return -1

    def parsed(self, parent: Element) -> _Children:
        """Parses all of the content."""
        text, begin, children = self._source.text, self._begin, _Children()
        pieces: list[str] = []
        while (at := text.find("<", begin, self._end)) >= 0:
            if at > begin:
                pieces.append(text[begin:at])
            if text[at + 1] in "!?":
                begin = _find_end(text, at) + 1
                pieces.append(text[at:begin])
                continue
            element, begin = self._element(parent, at)
            element._before, pieces = pieces, []
            children.link(element, None)
            if begin == self._last:
                for new in self._new:
                    children.link(new, None)
        if begin < self._end:
            pieces.append(text[begin : self._end])
        children.inside = pieces
        return children

    def write(self, parts: list[str]) -> None:
        text, begin = self._source.text, self._begin
        for at, (element, behind) in sorted(self._found.items()):
            parts.append(text[begin:at])
            element._write(parts)
            begin = behind
        for new in self._new:  # after the last child, which is among those
            parts += new._before
            new._write(parts)
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


# ---- writing ----

QUOTE = '"'


def _quoted(value: str, quote: str) -> str:
    return f"{quote}{value.translate(VALUE_ESCAPES).replace(quote, QUOTE_ESCAPES[quote])}{quote}"


def _checked(text: str) -> None:
    """Checks that XML can hold a text."""
    if not isinstance(text, str):
        raise _mistake(TypeError(f"a value must be a str, not {type(text).__name__}"))
    if not text.isprintable():
        try:
            ParserCreate("utf-8").Parse(f"<a>{text.translate(TEXT_ESCAPES)}</a>", True)
        except (ExpatError, UnicodeEncodeError):
            what = "the text has a character that XML does not allow"
            raise _mistake(ValueError(what)) from None


def _beside(element: ref[Element] | None) -> Element | None:
    return element() if element else None


def _is_space(text: str) -> bool:
    return not text.strip(SPACE)


def _line(text: str, begin: int, end: int) -> str | None:
    """Returns this range of a text from its last line break on, if it is white space with one."""
    space = text[begin:end]
    at = space.rfind("\n")
    if at < 0 or space.strip(SPACE):
        return None
    return space[at - 1 :] if space.startswith("\r", max(at - 1, 0)) else space[at:]


def _joined(left: list[str], right: list[str]) -> list[str]:
    """Joins what stood before and behind an element. Two texts become one."""
    if not left or not right or "<" in left[-1] + right[0]:
        return left + right
    # Neither of them had this, which XML does not allow.
    return [*left[:-1], (left[-1] + right[0]).replace("]]>", "]]&gt;"), *right[1:]]


def _error(before: str, what: str) -> XmlError:
    before = before[before.startswith("\ufeff") :]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    return XmlError(f"line {line}, column {column}: {what}")
