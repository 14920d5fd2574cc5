package xmledit_test

import (
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"sidecar-shim.example/hook/xmledit"
)

// FuzzParse compares the parser with Go's own, and does edits that the fuzzer chooses: each byte is
// one.
func FuzzParse(f *testing.F) {
	all := "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b"
	for _, vector := range vectors(f) {
		f.Add(string(vector.Document), all)
	}
	f.Add("<a>]<b/>]<c/>></a>", "\x40\x48")
	f.Add("<a xmlns:qemu='urn:x'><qemu:b/></a>", "\x09\x19\x0a")
	f.Fuzz(func(t *testing.T, text, edits string) {
		document, err := xmledit.Parse([]byte(text))
		if err != nil {
			return
		}
		if same := written(t, document); same != text {
			t.Fatalf("%q became %q", text, same)
		}
		checkWithGo(t, text)
		if len(edits) > 64 {
			edits = edits[:64]
		}
		for _, edit := range []byte(edits) {
			doEdit(document, edit)
			after := written(t, document)
			again := parsed(t, after)
			if got := written(t, again); got != after {
				t.Fatalf("%q became %q", after, got)
			}
			checkWithGo(t, after)
		}
	})
}

// doEdit does one of the operations on one of the first elements.
func doEdit(document *xmledit.Document, edit byte) {
	const odd = "<&>]]>\"'\t\r\n"
	element := document.Root()
	for range edit >> 4 {
		if next := element.Find("*"); next != nil {
			element = next
		}
	}
	if document.Root() == element && (edit&15 == 4 || edit&15 == 5) {
		return // not allowed
	}
	switch edit & 15 {
	case 0:
		element.SetAttr("k", odd)
	case 1:
		element.SetText(odd)
	case 2:
		element.Ensure("b/c[@k=?]", odd)
	case 3:
		element.Append("b[@k='1']")
	case 4:
		element.InsertBefore("c")
	case 5:
		element.Remove()
	case 6:
		element.RemoveAttr("k")
	case 7:
		for _, child := range element.FindAll("*") {
			child.Remove()
		}
	case 8:
		if child := element.Find("*"); child != nil {
			child.Remove()
		}
	case 9:
		element.SetAttr("qemu:k", "1")
	case 10:
		element.Ensure("qemu:c[@xml:lang='de']")
	case 11:
		element.SetText("")
	}
}

// checkWithGo expects that encoding/xml can read a document. Its tables of characters in names
// follow an older edition of XML.
func checkWithGo(t *testing.T, text string) {
	t.Helper()
	decoder := xml.NewDecoder(strings.NewReader(strings.TrimPrefix(text, "\ufeff")))
	for {
		_, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			if strings.Contains(err.Error(), "invalid XML name") || strings.Contains(err.Error(), "expected element name") {
				return
			}
			t.Fatalf("encoding/xml: %v: %q", err, text)
		}
	}
}
