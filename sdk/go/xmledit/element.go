package xmledit

import (
	"bytes"
	"encoding/xml"
	"strings"
)

// An Element is one element of a Document.
//
// Child, Children, Attr and Text may be called on a nil *Element, which has no children, no
// attributes and no text: root.Child("os").Child("smbios").Attr("mode") needs no check between.
type Element struct {
	document   *Document
	name       string
	start, end []byte // the tags as they are written; of <a/> end is empty
	attrs      []xml.Attr
	nodes      []node
}

// A node is a child element, or bytes between child elements: a text, a comment, …
type node struct {
	element *Element
	raw     []byte
}

// Name is the element's name as it is written, with its prefix.
func (e *Element) Name() string { return e.name }

// Attr is an attribute's value, and whether the attribute is there.
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

// Text is the element's own text: without its child elements, comments and references resolved.
func (e *Element) Text() string {
	var text strings.Builder
	if e != nil {
		for _, node := range e.nodes {
			text.WriteString(node.text())
		}
	}
	return text.String()
}

// Children are the child elements with a name and attributes, which are pairs of name and value.
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

// Child is the first child element with a name and attributes, which are pairs of name and value, or
// nil.
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

// Ensure is Child, and appends such an element if there is none.
func (e *Element) Ensure(name string, attrs ...string) *Element {
	if child := e.Child(name, attrs...); child != nil {
		return child
	}
	return e.Append(name, attrs...)
}

// Append adds an element behind the last child element, on a line of its own if that has one.
func (e *Element) Append(name string, attrs ...string) *Element {
	if !isName(name) {
		e.document.fail("<%s>: an element with an invalid name", e.name)
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

// Remove takes out a child element, with the white space before it. It does nothing if child is no
// child of the element.
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

// SetText makes text the only content of the element. An element that has just this text stays as it
// is written.
func (e *Element) SetText(text string) {
	if e.onlyText() && e.Text() == text {
		return
	}
	if !isText(text) {
		e.document.fail("<%s>: a text with a character that XML cannot hold", e.name)
	}
	e.open()
	e.nodes = []node{{raw: []byte(textEscaper.Replace(text))}}
}

// SetAttr sets an attribute. One that has this value already stays as it is written.
func (e *Element) SetAttr(name, value string) {
	if old, ok := e.Attr(name); ok && old == value {
		return
	}
	if !isName(name) || !isText(value) {
		e.document.fail("<%s>: an attribute with an invalid name or a character that XML cannot hold", e.name)
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

// open makes <a></a> of <a/>.
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

// onlyText says that nothing but text is in the element: no child element, comment or instruction.
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
	token, _ := xml.NewDecoder(bytes.NewReader(n.raw)).RawToken() // it was read before
	text, _ := token.(xml.CharData)                               // not a comment
	return string(text)
}
