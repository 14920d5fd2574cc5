package xmledit

import (
	"bytes"
	"encoding/xml"
	"slices"
	"strings"
)

var (
	textEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#13;")
	// Parsers normalize unescaped white space in attributes to spaces.
	attrEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;",
		"\t", "&#9;", "\n", "&#10;", "\r", "&#13;")
)

// valueAt returns the range of the value of attribute number n in a well-formed start tag, with its
// quotes.
func valueAt(tag []byte, n int) (from, to int) {
	for ; ; n-- {
		// In a tag, quotes occur only around values.
		from = to + bytes.IndexAny(tag[to:], `"'`)
		to = from + 1 + bytes.IndexByte(tag[from+1:], tag[from]) + 1
		if n == 0 {
			return from, to
		}
	}
}

// splice returns a new slice with text in place of old[from:to].
func splice(old []byte, from, to int, text string) []byte {
	return slices.Concat(old[:from], []byte(text), old[to:])
}

// isText reports whether XML allows all characters of a text.
func isText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff
	}) && strings.ToValidUTF8(text, "") == text
}

// isName reports whether the parser accepts a name for elements and attributes.
func isName(name string) bool {
	decoder := xml.NewDecoder(strings.NewReader("<" + name + "/>"))
	token, err := decoder.RawToken()
	start, ok := token.(xml.StartElement)
	return err == nil && ok && len(start.Attr) == 0 && written(start.Name) == name &&
		decoder.InputOffset() == int64(len(name)+3)
}
