package xmledit

import "strings"

// An Element is one element of a Document. It stays valid while the document is edited. After it
// was removed, edits of it do not show.
type Element struct {
	node
	document      *Document
	parent        *Element // also of a removed element: it keeps the meaning of prefixes
	prefix, local string
	tag, end      string      // as written; the end of <a/> is empty
	attrs         *attributes // of the tag, read when they are needed
	isSplit       bool        // whether attributes have changed: then the tag ends before them
	tail          string      // and this is what follows them
	bindings      []binding   // namespaces that the tag declares
	first, last   *node
	depth         int // 1 for the root
	removed       bool
}

// A node is a child element, or the text, comments and instructions between two of them.
type node struct {
	previous, next *node
	element        *Element // nil for raw content
	raw            string
}

// An Attr is an attribute, with its name as written.
type Attr struct{ Name, Value string }

// Name returns the element's name without its prefix.
func (e *Element) Name() string {
	if e == nil {
		return ""
	}
	return e.local
}

// Parent returns the element around this one. It returns nil for the root and for an element that
// was removed.
func (e *Element) Parent() *Element {
	if e == nil || e.removed {
		return nil
	}
	return e.parent
}

// Attr returns an attribute's value, and whether the attribute exists.
func (e *Element) Attr(name string) (value string, ok bool) {
	wanted := e.attrName(name)
	if found := e.find(wanted); found >= 0 {
		return decodeValue(e.attributes().list[found].raw()), true
	}
	return "", false
}

// Attrs returns the attributes in their order. Namespace declarations are not attributes.
func (e *Element) Attrs() []Attr {
	if e == nil {
		return nil
	}
	var attrs []Attr
	for _, attr := range e.attributes().list {
		if attr.text != "" && !attr.declares() {
			attrs = append(attrs, Attr{attr.written(), decodeValue(attr.raw())})
		}
	}
	return attrs
}

// SetAttr changes or adds an attribute. It changes nothing if the attribute already has the value.
func (e *Element) SetAttr(name, value string) {
	wanted := e.attrName(name)
	if e == nil {
		return
	}
	found := e.find(wanted)
	if found >= 0 && decodeValue(e.attributes().list[found].raw()) == value {
		return
	}
	if !isText(value) {
		e.document.fail(e, "an attribute's value has a character that XML does not allow")
		return
	}
	if found >= 0 {
		attr := &e.split().list[found]
		quote := attr.text[attr.value]
		attr.text = attr.text[:attr.value+1] + escapeValue(value, quote) + string(quote)
		return
	}
	e.addAttr(e.attrPrefix(wanted), wanted.local, value)
}

// RemoveAttr removes an attribute and the white space before it.
func (e *Element) RemoveAttr(name string) {
	wanted := e.attrName(name)
	if found := e.find(wanted); found >= 0 {
		e.split().remove(found)
	}
}

// Text returns the element's own text, without child elements and comments, with references
// resolved.
func (e *Element) Text() string {
	if e == nil {
		return ""
	}
	if e.first != nil && e.first == e.last {
		return decodeContent(e.first.raw)
	}
	var text strings.Builder
	for node := e.first; node != nil; node = node.next {
		text.WriteString(decodeContent(node.raw))
	}
	return text.String()
}

// SetText replaces everything inside of the element with a text. It changes nothing if that is the
// content already.
func (e *Element) SetText(text string) {
	if e == nil || (e.hasOnlyText() && e.Text() == text) {
		return
	}
	if !isText(text) {
		e.document.fail(e, "the text has a character that XML does not allow")
		return
	}
	for node := e.first; node != nil; node = node.next {
		if node.element != nil {
			node.element.removed = true
		}
	}
	e.open()
	e.first, e.last = nil, nil
	if text != "" {
		e.insert(&node{raw: textEscaper.Replace(text)}, nil)
	}
}

// Remove removes the element and the white space before it.
func (e *Element) Remove() {
	switch {
	case e == nil || e.removed:
	case e.parent == nil:
		e.document.fail(e, "the root element cannot be removed")
	default:
		e.takeSpaceBefore()
		before, after := e.previous, e.next
		e.parent.unlink(&e.node)
		e.removed = true
		keepTextValid(before, after)
	}
}

// hasOnlyText reports whether the element contains only text: no child element, comment or
// instruction.
func (e *Element) hasOnlyText() bool {
	for node := e.first; node != nil; node = node.next {
		if node.element != nil || hasMarkup(node.raw) {
			return false
		}
	}
	return true
}

// open turns <a/> into <a></a>.
func (e *Element) open() {
	if e.end == "" {
		if e.isSplit {
			e.tail = ">"
		} else {
			e.tag = strings.TrimRight(strings.TrimSuffix(e.tag, "/>"), space) + ">"
		}
		e.end = "</" + e.written() + ">"
	}
}

// insert links a node before another one, or as the last one.
func (e *Element) insert(added, before *node) {
	previous := e.last
	if before != nil {
		previous = before.previous
		before.previous = added
	} else {
		e.last = added
	}
	added.previous, added.next = previous, before
	if previous != nil {
		previous.next = added
	} else {
		e.first = added
	}
}

// unlink is the opposite of insert.
func (e *Element) unlink(old *node) {
	if old.previous != nil {
		old.previous.next = old.next
	} else {
		e.first = old.next
	}
	if old.next != nil {
		old.next.previous = old.previous
	} else {
		e.last = old.previous
	}
	old.previous, old.next = nil, nil
}

// written returns the name with its prefix as written.
func (e *Element) written() string { return join(e.prefix, e.local) }

func (e *Element) appendTo(out []byte) []byte {
	out = append(out, e.tag...)
	if e.isSplit {
		for _, attr := range e.attrs.list {
			out = append(out, attr.text...)
		}
		out = append(out, e.tail...)
	}
	for node := e.first; node != nil; node = node.next {
		out = append(out, node.raw...)
		if node.element != nil {
			out = node.element.appendTo(out)
		}
	}
	return append(out, e.end...)
}
