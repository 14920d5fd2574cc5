package xmledit

import (
	"bytes"
	"encoding/xml"
	"slices"
	"strings"
)

var (
	textEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "\r", "&#13;")
	// A parser makes spaces of the white space in an attribute, unless it is escaped.
	attrEscaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;",
		"\t", "&#9;", "\n", "&#10;", "\r", "&#13;")
)

// valueAt is where the value of attribute number n stands in a well-formed start tag, with its quotes.
func valueAt(tag []byte, n int) (from, to int) {
	for ; ; n-- {
		// No quotes and no = stand in a tag outside of attributes.
		from = to + bytes.IndexAny(tag[to:], `"'`)
		to = from + 1 + bytes.IndexByte(tag[from+1:], tag[from]) + 1
		if n == 0 {
			return from, to
		}
	}
}

// splice is a new slice in which text stands in place of old[from:to].
func splice(old []byte, from, to int, text string) []byte {
	return slices.Concat(old[:from], []byte(text), old[to:])
}

// isText says that XML can hold a text.
func isText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff
	}) && strings.ToValidUTF8(text, "") == text
}

// isName says that an element or attribute can have a name, by asking the parser.
func isName(name string) bool {
	decoder := xml.NewDecoder(strings.NewReader("<" + name + "/>"))
	token, err := decoder.RawToken()
	start, ok := token.(xml.StartElement)
	return err == nil && ok && len(start.Attr) == 0 && written(start.Name) == name &&
		decoder.InputOffset() == int64(len(name)+3)
}
