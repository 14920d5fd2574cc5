package xmledit

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Marks around markup in content.
const (
	commentStart, commentEnd         = "<!--", "-->"
	cdataStart, cdataEnd             = "<![CDATA[", "]]>"
	instructionStart, instructionEnd = "<?", "?>"
	declarationStart                 = "<?xml"
	byteOrderMark                    = "\ufeff"
)

// A SyntaxError says where and why a document is not well-formed. It quotes nothing of the
// document.
type SyntaxError struct {
	Line, Column int // from 1; columns are characters
	Reason       string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Line, e.Column, e.Reason)
}

// A fault is a SyntaxError before its line is counted.
type fault struct {
	position int
	reason   string
}

func (f *fault) at(text string) *SyntaxError {
	line, column := lineOf(text, f.position)
	return &SyntaxError{line, column, f.reason}
}

func lineOf(text string, position int) (line, column int) {
	before := strings.TrimPrefix(text[:position], byteOrderMark)
	begin := strings.LastIndexByte(before, '\n') + 1
	return strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[begin:]) + 1
}

// A parser builds the tree of a document.
type parser struct {
	document *Document
	text     string
	position int
	open     *Element // the innermost element without its end tag
	starts   []int    // positions of the open elements
	attrs    []attr   // of the last tag
	// Elements and nodes are allocated many at a time.
	elements []Element
	nodes    []node
}

// chunk is the number of elements that are allocated at a time.
const chunk = 64

func (p *parser) parse() *fault {
	if at := forbidden(p.text); at >= 0 {
		return &fault{at, "a character that XML does not allow, or not UTF-8"}
	}
	p.position = len(p.text) - len(strings.TrimPrefix(p.text, byteOrderMark))
	if fault := p.declaration(); fault != nil {
		return fault
	}
	for {
		from := p.position
		if fault := p.content(); fault != nil {
			return fault
		}
		if p.open != nil && p.position > from {
			p.keep(p.text[from:p.position])
		}
		if p.position == len(p.text) {
			return p.finish()
		}
		read := p.startTag
		if strings.HasPrefix(p.text[p.position:], "</") {
			read = p.endTag
		}
		if fault := read(); fault != nil {
			return fault
		}
	}
}

func (p *parser) finish() *fault {
	switch {
	case p.open != nil:
		line, _ := lineOf(p.text, p.starts[len(p.starts)-1])
		return p.fault(fmt.Sprintf("the document ends inside of the element that starts in line %d", line))
	case p.document.root == nil:
		return p.fault("the document has no element")
	}
	return nil
}

func (p *parser) fault(reason string) *fault { return &fault{p.position, reason} }

// content reads texts, comments, CDATA sections and instructions up to the next tag, or to the end.
func (p *parser) content() *fault {
	for p.position < len(p.text) {
		rest := p.text[p.position:]
		var fault *fault
		switch {
		case rest[0] != '<':
			fault = p.characters()
		case strings.HasPrefix(rest, commentStart):
			fault = p.comment()
		case strings.HasPrefix(rest, instructionStart):
			fault = p.instruction()
		case strings.HasPrefix(rest, cdataStart) && p.open != nil:
			fault = p.skip(cdataStart, cdataEnd, "a CDATA section without an end")
		case strings.HasPrefix(rest, "<!DOCTYPE"):
			return p.fault("a document type")
		case strings.HasPrefix(rest, "<!"):
			return p.fault(`markup that is not allowed here: "<!"`)
		default:
			return nil
		}
		if fault != nil {
			return fault
		}
	}
	return nil
}

// characters reads a text.
func (p *parser) characters() *fault {
	for ; p.position < len(p.text); p.position++ {
		switch char := p.text[p.position]; {
		case char == '<':
			return nil
		case p.open == nil && strings.IndexByte(space, char) < 0:
			return p.fault("text outside of the root element")
		case char == '&':
			_, length := reference(p.text[p.position:])
			if length == 0 {
				return p.fault("an invalid reference")
			}
			p.position += length - 1
		case char == ']' && strings.HasPrefix(p.text[p.position:], cdataEnd):
			return p.fault(`"]]>" in a text`)
		}
	}
	return nil
}

func (p *parser) comment() *fault {
	end := strings.Index(p.text[p.position+len(commentStart):], "--")
	if end < 0 {
		return p.fault("a comment without an end")
	}
	end += p.position + len(commentStart)
	if !strings.HasPrefix(p.text[end:], commentEnd) {
		return &fault{end, `"--" in a comment`}
	}
	p.position = end + len(commentEnd)
	return nil
}

func (p *parser) instruction() *fault {
	end := nameEnd(p.text, p.position+len(instructionStart))
	target := p.text[p.position+len(instructionStart) : end]
	switch {
	case target == "":
		return p.fault("an instruction without a name")
	case strings.EqualFold(target, "xml"):
		return p.fault("an XML declaration that is not at the beginning")
	case strings.Contains(target, ":"):
		return p.fault("an instruction with a prefix")
	case end < len(p.text) && !strings.HasPrefix(p.text[end:], instructionEnd) && spaceEnd(p.text, end) == end:
		return &fault{end, "white space expected"}
	}
	return p.skip(instructionStart, instructionEnd, "an instruction without an end")
}

// skip moves behind the end of the markup that begins here.
func (p *parser) skip(start, end, reason string) *fault {
	length := strings.Index(p.text[p.position+len(start):], end)
	if length < 0 {
		return p.fault(reason)
	}
	p.position += len(start) + length + len(end)
	return nil
}

// declaration reads the XML declaration, if there is one.
func (p *parser) declaration() *fault {
	begin := p.position + len(declarationStart)
	if !strings.HasPrefix(p.text[p.position:], declarationStart) || spaceEnd(p.text, begin) == begin {
		return nil
	}
	at := begin
	for _, allowed := range []struct {
		name     string
		values   []string
		required bool
	}{
		{"version", []string{"1.0"}, true},
		{"encoding", []string{"utf-8"}, false},
		{"standalone", []string{"yes", "no"}, false},
	} {
		found, wrong := readAttr(p.text, at)
		if wrong != nil || found.prefix != "" || found.local != allowed.name {
			if allowed.required {
				return p.fault("an XML declaration without a version")
			}
			continue
		}
		valid := false
		for _, value := range allowed.values {
			valid = valid || found.raw() == value || (allowed.name == "encoding" && strings.EqualFold(found.raw(), value))
		}
		if !valid {
			return &fault{at, "an XML declaration with another " + allowed.name + " than " + strings.Join(allowed.values, " or ")}
		}
		at += len(found.text)
	}
	at = spaceEnd(p.text, at)
	if !strings.HasPrefix(p.text[at:], instructionEnd) {
		return p.fault("an invalid XML declaration")
	}
	p.position = at + len(instructionEnd)
	return nil
}

func (p *parser) startTag() *fault {
	tag, fault := readTag(p.text, p.position, p.attrs[:0])
	if fault != nil {
		return fault
	}
	if p.open == nil && p.document.root != nil {
		return p.fault("a second root element")
	}
	element := p.element()
	element.prefix, element.local = tag.prefix, tag.local
	element.tag = p.text[p.position:tag.end]
	if element.depth > maxDepth {
		return p.fault(fmt.Sprintf("elements nested deeper than %d", maxDepth))
	}
	p.attrs = tag.attrs
	if reason := element.check(tag.attrs); reason != "" {
		return p.fault(reason)
	}
	if p.open == nil {
		p.document.root = element
		p.document.before = p.text[:p.position]
	} else {
		p.open.insert(&element.node, nil)
	}
	p.open = element
	p.starts = append(p.starts, p.position)
	p.position = tag.end
	if tag.isEmpty {
		p.close("")
	}
	return nil
}

func (p *parser) endTag() *fault {
	if p.open == nil {
		return p.fault("an end tag without a start tag")
	}
	name := p.open.written()
	end := spaceEnd(p.text, p.position+2+len(name))
	if !strings.HasPrefix(p.text[p.position+2:], name) || !strings.HasPrefix(p.text[min(end, len(p.text)):], ">") {
		line, _ := lineOf(p.text, p.starts[len(p.starts)-1])
		return p.fault(fmt.Sprintf("an end tag that does not match the start tag in line %d", line))
	}
	from := p.position
	p.position = end + 1
	p.close(p.text[from:p.position])
	return nil
}

// close ends the innermost element.
func (p *parser) close(tag string) {
	p.open.end = tag
	p.open = p.open.parent
	p.starts = p.starts[:len(p.starts)-1]
	if p.open == nil {
		p.document.after = p.text[p.position:]
	}
}

// element returns a new element inside of the open one.
func (p *parser) element() *Element {
	if len(p.elements) == 0 {
		p.elements = make([]Element, chunk)
	}
	element := &p.elements[0]
	p.elements = p.elements[1:]
	element.element = element
	element.document, element.parent, element.depth = p.document, p.open, 1
	if p.open != nil {
		element.depth = p.open.depth + 1
	}
	return element
}

// keep adds content to the open element.
func (p *parser) keep(raw string) {
	if len(p.nodes) == 0 {
		p.nodes = make([]node, chunk)
	}
	p.nodes[0].raw = raw
	p.open.insert(&p.nodes[0], nil)
	p.nodes = p.nodes[1:]
}
