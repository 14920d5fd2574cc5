// Package xmledit edits XML documents and keeps every byte that is not edited.
//
// A document that is decoded and encoded with encoding/xml loses white space, comments, and the
// order and quotes of attributes, and its namespace declarations move. Here an unchanged element is
// written as it was read:
//
//	document, err := xmledit.Parse(domain)
//	if err != nil {
//		return nil, err
//	}
//	document.Root().Ensure("os").Ensure("smbios").SetAttr("mode", "sysinfo")
//	return document.Bytes()
//
// Names are compared as written, with their prefix: "qemu:commandline".
package xmledit

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth is the maximum nesting depth of elements, which the shim enforces: libxml2, which
// libvirt uses, has about the same.
const maxDepth = 255

// space has the characters that are white space in XML.
const space = " \t\r\n"

// A Document is a well-formed XML document. It is not safe for concurrent use.
type Document struct {
	before, after []byte // around the root: declaration, comments, white space
	root          *Element
	err           error // the first edit that XML does not allow
}

// Parse parses a document, which must be well-formed, in UTF-8, and without a document type. Errors
// have a position and names of elements, and quote nothing else of the document.
//
// The document's bytes must not change while the result is in use.
func Parse(document []byte) (*Document, error) {
	if !utf8.Valid(document) {
		return nil, errors.New("not UTF-8")
	}
	parser := parser{decoder: xml.NewDecoder(bytes.NewReader(document)), bytes: document}
	if err := parser.parse(); err != nil {
		line, column := parser.decoder.InputPos()
		return nil, fmt.Errorf("line %d, column %d: %w", line, column, err)
	}
	return parser.result, nil
}

// Root returns the document's outermost element.
func (d *Document) Root() *Element { return d.root }

// Bytes returns the document with its changes. Without changes, it equals the parsed document.
//
// The error names the first element that got a text or a name that XML does not allow.
func (d *Document) Bytes() ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	size := len(d.before) + d.root.size() + len(d.after)
	out := append(make([]byte, 0, size), d.before...)
	return append(d.root.appendTo(out), d.after...), nil
}

// fail keeps the first error, so that a chain of changes needs only one check, in Bytes.
func (d *Document) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// A parser splits a document at the decoder's offsets.
type parser struct {
	decoder *xml.Decoder
	bytes   []byte
	open    []*Element // from the root inwards
	result  *Document
}

func (p *parser) parse() error {
	for {
		start := p.decoder.InputOffset()
		// A raw token: names keep their prefixes, and xmlns attributes stay attributes.
		token, err := p.decoder.RawToken()
		if err == io.EOF {
			break
		}
		if err != nil {
			// Without the decoder's text, which may quote the document.
			return errors.New("not well-formed")
		}
		raw := p.bytes[start:p.decoder.InputOffset()]
		if err := p.take(token, raw); err != nil {
			return err
		}
	}
	switch {
	case len(p.open) > 0:
		return fmt.Errorf("the document ends inside <%s>", p.open[len(p.open)-1].name)
	case p.result == nil:
		return errors.New("the document has no element")
	}
	return nil
}

func (p *parser) take(token xml.Token, raw []byte) error {
	before := p.bytes[:p.decoder.InputOffset()-int64(len(raw))]
	switch token := token.(type) {
	case xml.StartElement:
		return p.start(token, before, raw)
	case xml.EndElement:
		return p.end(token, raw)
	case xml.Directive:
		return errors.New("a document type")
	case xml.ProcInst:
		if token.Target == "xml" && len(withoutMark(before)) > 0 {
			return errors.New("an XML declaration is not at the beginning")
		}
	case xml.CharData:
		text := raw
		if len(before) == 0 {
			text = withoutMark(raw)
		}
		// The decoder accepts text outside of the root.
		if len(p.open) == 0 && len(bytes.Trim(text, space)) > 0 {
			return errors.New("text outside of the root element")
		}
	}
	p.keep(raw)
	return nil
}

func (p *parser) start(token xml.StartElement, before, raw []byte) error {
	element := &Element{name: written(token.Name), start: raw, attrs: token.Attr}
	switch {
	case len(p.open) == maxDepth:
		return fmt.Errorf("elements nested deeper than %d", maxDepth)
	case len(p.open) > 0:
		element.document = p.result
		parent := p.open[len(p.open)-1]
		parent.nodes = append(parent.nodes, node{element: element})
	case p.result != nil:
		return fmt.Errorf("a second root element, <%s>", element.name)
	default:
		p.result = &Document{before: before, root: element}
		element.document = p.result
	}
	p.open = append(p.open, element)
	return nil
}

func (p *parser) end(token xml.EndElement, raw []byte) error {
	name := written(token.Name)
	if len(p.open) == 0 {
		return fmt.Errorf("</%s> without a start tag", name)
	}
	element := p.open[len(p.open)-1]
	if name != element.name {
		return fmt.Errorf("<%s> is closed with </%s>", element.name, name)
	}
	element.end = raw // empty for <a/>
	p.open = p.open[:len(p.open)-1]
	if len(p.open) == 0 {
		p.result.after = p.bytes[p.decoder.InputOffset():]
	}
	return nil
}

// keep adds bytes other than an element's to the current element. The Document has those around the
// root already.
func (p *parser) keep(raw []byte) {
	if len(p.open) > 0 {
		parent := p.open[len(p.open)-1]
		parent.nodes = append(parent.nodes, node{raw: raw})
	}
}

// withoutMark removes a byte order mark.
func withoutMark(beginning []byte) []byte { return bytes.TrimPrefix(beginning, []byte("\ufeff")) }

// written returns a name as written in the document.
func written(name xml.Name) string {
	if name.Space == "" {
		return name.Local
	}
	return name.Space + ":" + name.Local
}
