// Package xmledit changes XML documents and leaves every byte alone that it was not asked to change.
//
// Writing a document that was read with encoding/xml loses white space, the order and quotes of
// attributes, comments, and moves namespace declarations. Here an element that is not changed is
// written as it was read:
//
//	document, err := xmledit.Parse(domain)
//	if err != nil {
//		return nil, err
//	}
//	document.Root().Ensure("os").Ensure("smbios").SetAttr("mode", "sysinfo")
//	return document.Bytes()
//
// Names are compared as they are written, with their prefix: "qemu:commandline".
package xmledit

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// maxDepth is how deep elements may lie in each other: libxml2, with which libvirt reads, takes no
// more.
const maxDepth = 256

// space is what XML takes for white space.
const space = " \t\r\n"

// A Document is a well-formed XML document. It is not safe for use by several goroutines at once.
type Document struct {
	before, after []byte // what stands around the root: declaration, comments, white space
	root          *Element
	err           error // the first text that XML cannot hold
}

// Parse reads a document. It has to be well-formed, in UTF-8, and without a document type. An error
// tells a position and names of elements, but nothing else of the document.
//
// The document's bytes must not be changed as long as the result is used.
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

// Root is the document's outermost element.
func (d *Document) Root() *Element { return d.root }

// Bytes is the document with its changes. Without any, it equals what was parsed.
//
// An error says which element was given a text or a name that XML cannot hold.
func (d *Document) Bytes() ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	size := len(d.before) + d.root.size() + len(d.after)
	out := append(make([]byte, 0, size), d.before...)
	return append(d.root.appendTo(out), d.after...), nil
}

// fail keeps the first error, so that a chain of changes needs one check at its end.
func (d *Document) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
}

// A parser takes a document apart at the offsets that the decoder tells.
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
			// Not the decoder's own text, which may quote the document.
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
		return errors.New("there is no element")
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
			return errors.New("an XML declaration that is not at the beginning")
		}
	case xml.CharData:
		text := raw
		if len(before) == 0 {
			text = withoutMark(raw)
		}
		// The decoder does not mind text outside of the root.
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
		return fmt.Errorf("more than %d elements in each other", maxDepth)
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
		return fmt.Errorf("</%s> without its beginning", name)
	}
	element := p.open[len(p.open)-1]
	if name != element.name {
		return fmt.Errorf("<%s> ends with </%s>", element.name, name)
	}
	element.end = raw // of <a/> the end tag is empty
	p.open = p.open[:len(p.open)-1]
	if len(p.open) == 0 {
		p.result.after = p.bytes[p.decoder.InputOffset():]
	}
	return nil
}

// keep puts bytes that are no element where they stand. Those outside of the root are there already.
func (p *parser) keep(raw []byte) {
	if len(p.open) > 0 {
		parent := p.open[len(p.open)-1]
		parent.nodes = append(parent.nodes, node{raw: raw})
	}
}

// withoutMark is the beginning of a document without a byte order mark.
func withoutMark(beginning []byte) []byte { return bytes.TrimPrefix(beginning, []byte("\ufeff")) }

// written is a name as it stands in the document.
func written(name xml.Name) string {
	if name.Space == "" {
		return name.Local
	}
	return name.Space + ":" + name.Local
}
