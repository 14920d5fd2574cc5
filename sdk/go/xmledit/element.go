package xmledit

import (
	"bytes"
	"encoding/xml"
	"strings"
)

// An Element is one element of a Document.
//
// Child, Children, Attr and Text may be called on a nil *Element, which has no children, attributes
// or text. So root.Child("os").Child("smbios").Attr("mode") needs no checks in between.
type Element struct {
	document   *Document
	name       string
	start, end []byte // the tags in their written form; the end of <a/> is empty
	attrs      []xml.Attr
	nodes      []node
}

// A node is a child element, or the bytes of a text, a comment, … between child elements.
type node struct {
	element *Element
	raw     []byte
}

// Name returns the element's name as written, with its prefix.
func (e *Element) Name() string { return e.name }

// Attr returns an attribute's value, and whether the attribute exists.
func (e *Element) Attr(name string) (value string, ok bool) {
	if e != nil {
		for _, attr := range e.attrs {
			if written(attr.Name) == name {
				return attr.Value, true
			}
		}
	}
	return "", false
}

// Text returns the element's own text, without child elements and comments, with references
// resolved.
func (e *Element) Text() string {
	var text strings.Builder
	if e != nil {
		for _, node := range e.nodes {
			text.WriteString(node.text())
		}
	}
	return text.String()
}

// Children returns the child elements with this name and these attributes, which are pairs of name
// and value.
func (e *Element) Children(name string, attrs ...string) []*Element {
	var found []*Element
	if e != nil {
		for _, node := range e.nodes {
			if node.element != nil && node.element.is(name, attrs) {
				found = append(found, node.element)
			}
		}
	}
	return found
}

// Child returns the first child element with this name and these attributes, which are pairs of
// name and value. It returns nil if there is none.
func (e *Element) Child(name string, attrs ...string) *Element {
	if e != nil {
		for _, node := range e.nodes {
			if node.element != nil && node.element.is(name, attrs) {
				return node.element
			}
		}
	}
	return nil
}

// Ensure is like Child, but appends such an element if there is none.
func (e *Element) Ensure(name string, attrs ...string) *Element {
	if child := e.Child(name, attrs...); child != nil {
		return child
	}
	return e.Append(name, attrs...)
}

// Append adds an element after the last child element, on a new line if that one is on its own
// line.
func (e *Element) Append(name string, attrs ...string) *Element {
	if !isName(name) {
		e.document.fail("<%s>: the name of a new child element is invalid", e.name)
	}
	child := &Element{document: e.document, name: name}
	child.start, child.end = []byte("<"+name+">"), []byte("</"+name+">")
	for ; len(attrs) > 0; attrs = attrs[2:] {
		child.SetAttr(attrs[0], attrs[1])
	}
	e.open()
	last := len(e.nodes)
	for last > 0 && e.nodes[last-1].element == nil {
		last--
	}
	added := []node{{element: child}}
	if last > 1 && e.nodes[last-2].isSpace() {
		added = []node{e.nodes[last-2], {element: child}}
	}
	if last == 0 {
		last = len(e.nodes)
	}
	e.nodes = append(e.nodes[:last:last], append(added, e.nodes[last:]...)...)
	return child
}

// Remove removes a child element and the white space before it. It does nothing if child is not a
// child of this element.
func (e *Element) Remove(child *Element) {
	for i, node := range e.nodes {
		if node.element == nil || node.element != child {
			continue
		}
		first := i
		if i > 0 && e.nodes[i-1].isSpace() {
			first--
		}
		e.nodes = append(e.nodes[:first:first], e.nodes[i+1:]...)
		return
	}
}

// SetText replaces the content of the element. It changes nothing if the content is already this
// text.
func (e *Element) SetText(text string) {
	if e.onlyText() && e.Text() == text {
		return
	}
	if !isText(text) {
		e.document.fail("<%s>: the text has a character that XML does not allow", e.name)
	}
	e.open()
	e.nodes = []node{{raw: []byte(textEscaper.Replace(text))}}
}

// SetAttr sets an attribute. It changes nothing if the attribute already has this value.
func (e *Element) SetAttr(name, value string) {
	if old, ok := e.Attr(name); ok && old == value {
		return
	}
	if !isName(name) || !isText(value) {
		e.document.fail("<%s>: an attribute has an invalid name or a character that XML does not allow", e.name)
		return
	}
	quoted := `"` + attrEscaper.Replace(value) + `"`
	for i, attr := range e.attrs {
		if written(attr.Name) == name {
			from, to := valueAt(e.start, i)
			e.start = splice(e.start, from, to, quoted)
			e.attrs[i].Value = value
			return
		}
	}
	tag := bytes.TrimSuffix(bytes.TrimSuffix(e.start, []byte(">")), []byte("/"))
	at := len(bytes.TrimRight(tag, space))
	e.start = splice(e.start, at, at, " "+name+"="+quoted)
	prefix, local, prefixed := strings.Cut(name, ":")
	if !prefixed {
		prefix, local = "", name
	}
	e.attrs = append(e.attrs, xml.Attr{Name: xml.Name{Space: prefix, Local: local}, Value: value})
}

// open turns <a/> into <a></a>.
func (e *Element) open() {
	if len(e.end) == 0 {
		tag := bytes.TrimRight(bytes.TrimSuffix(e.start, []byte("/>")), space)
		e.start = splice(tag, len(tag), len(tag), ">")
		e.end = []byte("</" + e.name + ">")
	}
}

func (e *Element) is(name string, attrs []string) bool {
	if e.name != name {
		return false
	}
	for ; len(attrs) > 0; attrs = attrs[2:] {
		if value, ok := e.Attr(attrs[0]); !ok || value != attrs[1] {
			return false
		}
	}
	return true
}

// onlyText reports whether the element contains only text: no child element, comment or
// instruction.
func (e *Element) onlyText() bool {
	for _, node := range e.nodes {
		if node.element != nil || bytes.HasPrefix(node.raw, []byte("<!--")) || bytes.HasPrefix(node.raw, []byte("<?")) {
			return false
		}
	}
	return true
}

func (e *Element) size() int {
	size := len(e.start) + len(e.end)
	for _, node := range e.nodes {
		size += len(node.raw)
		if node.element != nil {
			size += node.element.size()
		}
	}
	return size
}

func (e *Element) appendTo(out []byte) []byte {
	out = append(out, e.start...)
	for _, node := range e.nodes {
		out = append(out, node.raw...)
		if node.element != nil {
			out = node.element.appendTo(out)
		}
	}
	return append(out, e.end...)
}

func (n node) isSpace() bool {
	return n.element == nil && len(bytes.Trim(n.raw, space)) == 0
}

func (n node) text() string {
	if n.element != nil {
		return ""
	}
	if !bytes.ContainsAny(n.raw, "<&\r") {
		return string(n.raw)
	}
	token, _ := xml.NewDecoder(bytes.NewReader(n.raw)).RawToken() // was parsed before
	text, _ := token.(xml.CharData)                               // empty for a comment
	return string(text)
}
