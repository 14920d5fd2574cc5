package xmledit

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// A tag is a start tag.
type tag struct {
	prefix, local string
	attrs         []attr
	end           int // position behind it
	isEmpty       bool
}

// An attr is an attribute of a tag.
type attr struct {
	prefix, local string
	text          string // as written, with the white space before it
	value         int    // position of the opening quote in the text
}

func (a *attr) written() string { return join(a.prefix, a.local) }

// raw returns the value as written, without quotes.
func (a *attr) raw() string { return a.text[a.value+1 : len(a.text)-1] }

// declares reports whether the attribute is a namespace declaration.
func (a *attr) declares() bool {
	return a.prefix == "xmlns" || (a.prefix == "" && a.local == "xmlns")
}

// readTag reads the start tag at a position. The attributes are appended to a slice.
func readTag(text string, position int, attrs []attr) (tag, *fault) {
	tag := tag{attrs: attrs}
	at, ok := 0, false
	tag.prefix, tag.local, at, ok = readName(text, position+1)
	if !ok || tag.prefix == "xmlns" {
		return tag, &fault{position, "a tag with an invalid name"}
	}
	for {
		next := spaceEnd(text, at)
		rest := text[next:]
		switch {
		case strings.HasPrefix(rest, ">"):
			tag.end = next + 1
			return tag, nil
		case strings.HasPrefix(rest, "/>"):
			tag.end, tag.isEmpty = next+2, true
			return tag, nil
		case rest == "":
			return tag, &fault{position, "a tag without an end"}
		}
		attr, fault := readAttr(text, at)
		if fault != nil {
			return tag, fault
		}
		tag.attrs = append(tag.attrs, attr)
		at += len(attr.text)
	}
}

// readAttr reads the attribute at a position, with the white space before it.
func readAttr(text string, position int) (attr, *fault) {
	var attr attr
	at := spaceEnd(text, position)
	if at == position {
		return attr, &fault{at, "white space expected"}
	}
	ok := false
	name := at
	attr.prefix, attr.local, at, ok = readName(text, at)
	if !ok {
		return attr, &fault{name, "an attribute with an invalid name"}
	}
	at = spaceEnd(text, at)
	if !strings.HasPrefix(text[at:], "=") {
		return attr, &fault{at, "an attribute without a value"}
	}
	quote := spaceEnd(text, at+1)
	if quote == len(text) || (text[quote] != '"' && text[quote] != '\'') {
		return attr, &fault{quote, "an attribute's value without quotes"}
	}
	length := strings.IndexByte(text[quote+1:], text[quote])
	if length < 0 {
		return attr, &fault{quote, "an attribute's value without an end"}
	}
	attr.value = quote - position
	attr.text = text[position : quote+1+length+1]
	raw := attr.raw()
	if less := strings.IndexByte(raw, '<'); less >= 0 {
		return attr, &fault{quote + 1 + less, `"<" in an attribute's value`}
	}
	for offset := strings.IndexByte(raw, '&'); offset >= 0; {
		if _, length := reference(raw[offset:]); length == 0 {
			return attr, &fault{quote + 1 + offset, "an invalid reference"}
		}
		next := strings.IndexByte(raw[offset+1:], '&')
		if next < 0 {
			break
		}
		offset += 1 + next
	}
	return attr, nil
}

// check takes over the declarations of a new element's tag, and returns what is wrong with its
// attributes.
func (e *Element) check(attrs []attr) string {
	prefixed := 0
	for i := range attrs {
		if attr := &attrs[i]; attr.declares() {
			if reason := e.bind(attr); reason != "" {
				return reason
			}
		} else if attr.prefix != "" {
			prefixed++
		}
	}
	if hasTwice(attrs, func(attr *attr) name { return name{prefix: attr.prefix, local: attr.local} }) {
		return "an attribute twice"
	}
	// Two prefixes may stand for one namespace.
	if prefixed > 1 && hasTwice(attrs, func(attr *attr) name {
		if namespace, declared := e.declared(attr.prefix); declared && attr.prefix != "" {
			return name{local: attr.local, namespace: namespace}
		}
		return name{prefix: attr.prefix, local: attr.local}
	}) {
		return "an attribute twice, with two prefixes for one namespace"
	}
	return ""
}

// fewAttrs is the number of attributes up to which comparing all of them costs less than a map.
const fewAttrs = 16

// hasTwice reports whether two attributes have the same name.
func hasTwice(attrs []attr, nameOf func(attr *attr) name) bool {
	if len(attrs) > fewAttrs {
		names := make(map[name]bool, len(attrs))
		for i := range attrs {
			names[nameOf(&attrs[i])] = true
		}
		return len(names) < len(attrs)
	}
	for i := 1; i < len(attrs); i++ {
		for j := range i {
			if nameOf(&attrs[i]) == nameOf(&attrs[j]) {
				return true
			}
		}
	}
	return false
}

// bind takes over a namespace declaration, and returns what is wrong with it.
func (e *Element) bind(attr *attr) string {
	added := binding{namespace: decodeValue(attr.raw())}
	if attr.prefix != "" {
		added.prefix = attr.local
	}
	switch {
	case added.prefix != "" && added.namespace == "":
		return "a declaration of a prefix for no namespace"
	case added.prefix == "xmlns", added.namespace == xmlnsNamespace,
		(added.prefix == "xml") != (added.namespace == xmlNamespace):
		return "a declaration of a prefix or namespace that XML reserves"
	}
	e.bindings = append(e.bindings, added)
	return ""
}

// readName reads a name with at most one prefix.
func readName(text string, position int) (prefix, local string, end int, ok bool) {
	end = nameEnd(text, position)
	first, second, hasPrefix := strings.Cut(text[position:end], ":")
	if !hasPrefix {
		return "", first, end, first != ""
	}
	start, _ := utf8.DecodeRuneInString(second)
	return first, second, end, first != "" && second != "" && isNameStart(start) && !strings.Contains(second, ":")
}

// nameEnd returns the position behind the name at a position. If there is no name, it is that
// position.
func nameEnd(text string, position int) int {
	for at := position; at < len(text); {
		char, length := utf8.DecodeRuneInString(text[at:])
		if !isNameStart(char) && char != ':' && (at == position || !isNameChar(char)) {
			return at
		}
		at += length
	}
	return len(text)
}

func spaceEnd(text string, position int) int {
	for position < len(text) && strings.IndexByte(space, text[position]) >= 0 {
		position++
	}
	return position
}

// nameStart has the characters beyond ASCII with which names begin, as in XML 1.0, fifth edition.
var nameStart = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0xc0, 0xd6, 1}, {0xd8, 0xf6, 1}, {0xf8, 0x2ff, 1}, {0x370, 0x37d, 1}, {0x37f, 0x1fff, 1},
		{0x200c, 0x200d, 1}, {0x2070, 0x218f, 1}, {0x2c00, 0x2fef, 1}, {0x3001, 0xd7ff, 1},
		{0xf900, 0xfdcf, 1}, {0xfdf0, 0xfffd, 1},
	},
	R32: []unicode.Range32{{0x10000, 0xeffff, 1}},
}

func isNameStart(char rune) bool {
	if char < utf8.RuneSelf {
		return isPathNameStart(byte(char))
	}
	return unicode.Is(nameStart, char)
}

func isNameChar(char rune) bool {
	if char < utf8.RuneSelf {
		return isPathNameByte(byte(char))
	}
	return char == 0xb7 || 0x300 <= char && char <= 0x36f || char == 0x203f || char == 0x2040 || isNameStart(char)
}
