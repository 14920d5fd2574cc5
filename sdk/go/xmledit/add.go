package xmledit

import "strings"

// Append adds an element after the last child, or into an element without children, and returns it.
// The step's predicates become attributes.
func (e *Element) Append(step string, values ...string) *Element {
	wanted := e.step(step, values)
	if e == nil || !e.canAdd(wanted) {
		return nil
	}
	return e.appendNew(wanted)
}

// InsertBefore adds an element before this one, and returns it. The step's predicates
// become attributes.
func (e *Element) InsertBefore(step string, values ...string) *Element {
	wanted := e.step(step, values)
	if e == nil {
		return nil
	}
	if e.parent == nil {
		e.document.fail(e, "nothing can be inserted before the root element")
		return nil
	}
	if !e.parent.canAdd(wanted) {
		return nil
	}
	if e.removed {
		added := e.create(wanted)
		added.removed = true
		return added
	}
	added := e.parent.create(wanted)
	indentation, ownLine := e.indentation()
	e.parent.insert(&added.node, &e.node)
	if ownLine {
		e.parent.insert(&node{raw: indentation}, &e.node)
	}
	return added
}

// canAdd reports whether XML allows new elements, each inside of the one before. If not, it is the
// document's error.
func (e *Element) canAdd(steps ...step) bool {
	if e.depth+len(steps) > maxDepth {
		e.document.fail(e, "a new element is nested too deeply")
		return false
	}
	for _, step := range steps {
		for _, predicate := range step.predicates {
			if !isText(predicate.value) {
				e.document.fail(e, "an attribute of a new element has a character that XML does not allow")
				return false
			}
		}
	}
	return true
}

// create returns a new element, which is not linked yet.
func (e *Element) create(step step) *Element {
	added := &Element{document: e.document, parent: e, local: step.local, depth: e.depth + 1}
	added.element = added
	prefix, ok := e.prefixFor(step.prefix, step.namespace, true)
	if !ok {
		prefix = step.prefix
	}
	added.prefix = prefix
	added.tag, added.end = "<"+added.written()+">", "</"+added.written()+">"
	if !ok {
		if _, taken := e.declared(prefix); prefix == "" || taken {
			added.declare(prefix, step.namespace)
		} else {
			e.top().declare(prefix, step.namespace)
		}
	}
	for _, predicate := range step.predicates {
		if added.find(predicate.name) < 0 {
			added.addAttr(added.attrPrefix(predicate.name), predicate.local, predicate.value)
		}
	}
	return added
}

// appendNew adds a new element after the last child.
func (e *Element) appendNew(step step) *Element {
	added := e.create(step)
	e.open()
	last := e.last
	for last != nil && last.element == nil {
		last = last.previous
	}
	switch {
	case last != nil:
		if indentation, ownLine := last.element.indentation(); ownLine {
			e.insert(&node{raw: indentation}, last.next)
			last = last.next
		}
		e.insert(&added.node, last.next)
	case e.hasOnlySpace():
		e.insertFirst(added)
	default:
		e.insert(&added.node, nil)
	}
	return added
}

// insertFirst adds a child to an element that has only white space.
func (e *Element) insertFirst(added *Element) {
	rest := e.first
	endOnOwnLine := false
	for at := rest; at != nil; at = at.next {
		endOnOwnLine = endOnOwnLine || strings.Contains(at.raw, "\n")
	}
	outer, inner, ownLines := e.indentations()
	if ownLines {
		e.insert(&node{raw: inner}, rest)
	}
	e.insert(&added.node, rest)
	if ownLines && !endOnOwnLine {
		e.insert(&node{raw: outer}, nil)
	}
}

// indentations returns the white space before an element that has no children, and that before its
// first child, if the element and its parent are on their own lines.
func (e *Element) indentations() (outer, inner string, ownLines bool) {
	if e.parent == nil {
		return "", "", false
	}
	around, ownLine := "\n", true
	if e.parent.parent != nil {
		around, ownLine = e.parent.indentation()
	}
	outer, ownLines = e.indentation()
	deeper := strings.TrimPrefix(outer, around)
	if !ownLine || !ownLines || len(deeper)+len(around) != len(outer) || deeper == "" {
		return "", "", false
	}
	return outer, outer + deeper, true
}

// hasOnlySpace reports whether an element contains nothing but white space.
func (e *Element) hasOnlySpace() bool {
	for node := e.first; node != nil; node = node.next {
		if node.element != nil || !isSpace(node.raw) {
			return false
		}
	}
	return true
}

// indentation returns the white space before an element from the last line break on, if the element
// is on its own line: if only white space with a line break is before it.
func (e *Element) indentation() (indentation string, ownLine bool) {
	var text string
	for at := e.previous; at != nil && at.element == nil; at = at.previous {
		tail, isAll := lastText(at.raw)
		if !isSpace(tail) {
			return "", false
		}
		text = tail + text
		if !isAll {
			break
		}
	}
	line := strings.LastIndexByte(text, '\n')
	if line > 0 && text[line-1] == '\r' {
		line--
	}
	return text[max(line, 0):], line >= 0
}

// takeSpaceBefore removes the white space between an element and what is before it.
func (e *Element) takeSpaceBefore() {
	for at := e.previous; at != nil && at.element == nil; at = at.previous {
		if tail, isAll := lastText(at.raw); !isSpace(tail) {
			return // it belongs to a text
		} else if !isAll {
			break
		}
	}
	for at := e.previous; at != nil && at.element == nil; at = e.previous {
		if tail, isAll := lastText(at.raw); !isAll {
			at.raw = at.raw[:len(at.raw)-len(tail)]
			return
		}
		e.parent.unlink(at)
	}
}

// keepTextValid is called when nothing separates two nodes any more. XML does not allow "]]>" in a
// text, and each of its characters may come from another node.
func keepTextValid(before, after *node) {
	if before == nil || after == nil || before.element != nil || after.element != nil {
		return
	}
	joint := after.raw[:min(len(after.raw), 2)]
	if strings.HasPrefix(joint, ">") && endsInBrackets(before, 2) {
		after.raw = "&gt;" + after.raw[1:]
	} else if joint == "]>" && endsInBrackets(before, 1) {
		after.raw = "]&gt;" + after.raw[2:]
	}
}

// endsInBrackets reports whether the content up to a node ends with a number of "]". A comment or
// the like never ends with one.
func endsInBrackets(at *node, count int) bool {
	for ; at != nil && at.element == nil; at = at.previous {
		here := len(at.raw) - len(strings.TrimRight(at.raw, "]"))
		if count -= here; count <= 0 {
			return true
		}
		if here < len(at.raw) {
			return false
		}
	}
	return false
}
