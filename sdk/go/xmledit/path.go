package xmledit

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"

	"sidecar-shim.example/hook/internal/words"
)

// A PathError says why a string is not a path or a name. It is a mistake in the program.
type PathError struct {
	Path   string
	Reason string
	// harmless is the reason without the character of the path, or empty if it has none. A program
	// may have formatted a value from outside into the path.
	harmless string
}

func (e *PathError) Error() string { return fmt.Sprintf("path %q: %s", e.Path, e.Reason) }

// HarmlessWords returns what the log says.
func (e *PathError) HarmlessWords() words.Harmless {
	return words.Harmless(cmp.Or(e.harmless, e.Reason))
}

// anyName matches every element.
const anyName = "*"

// A step selects child elements.
type step struct {
	name
	predicates []predicate
}

// A predicate selects elements by the value of an attribute.
type predicate struct {
	name
	value string
}

// Find returns the first element of a path, in the order of the document, or nil.
func (e *Element) Find(path string, values ...string) *Element {
	var found *Element
	e.walk(e.path(path, values), func(element *Element, missing []step) bool {
		if len(missing) == 0 {
			found = element
		}
		return found == nil
	})
	return found
}

// FindAll returns all elements of a path, in the order of the document.
func (e *Element) FindAll(path string, values ...string) []*Element {
	var found []*Element
	e.walk(e.path(path, values), func(element *Element, missing []step) bool {
		if len(missing) == 0 {
			found = append(found, element)
		}
		return true
	})
	return found
}

// Ensure returns the first element of a path, and adds what is missing if there is none: it follows
// the longest beginning of the path that matches, and appends the other steps to the first such
// element. Their predicates become attributes.
func (e *Element) Ensure(path string, values ...string) *Element {
	steps := e.path(path, values)
	if e == nil {
		return nil
	}
	nearest, rest := e, steps
	e.walk(steps, func(element *Element, missing []step) bool {
		if len(missing) < len(rest) {
			nearest, rest = element, missing
		}
		return len(rest) > 0
	})
	for _, step := range rest {
		step.mustBeNew(path)
	}
	if !nearest.canAdd(rest...) {
		return nil
	}
	for _, step := range rest {
		nearest = nearest.appendNew(step)
	}
	return nearest
}

// walk visits the elements below e that match the first steps of a path, in the order of the
// document, with the steps that follow. It ends when visit returns false.
func (e *Element) walk(steps []step, visit func(element *Element, missing []step) bool) bool {
	if e == nil {
		return false
	}
	for node := e.first; node != nil; node = node.next {
		child := node.element
		if child == nil || !steps[0].matches(child) {
			continue
		}
		if !visit(child, steps[1:]) || (len(steps) > 1 && !child.walk(steps[1:], visit)) {
			return false
		}
	}
	return true
}

func (s *step) matches(e *Element) bool {
	if s.local != anyName {
		if s.local != e.local {
			return false
		}
		if namespace, known := e.lookup(e.prefix); !known || namespace != s.namespace {
			return false
		}
	}
	for _, predicate := range s.predicates {
		found := e.find(predicate.name)
		if found < 0 || decodeValue(e.attributes().list[found].raw()) != predicate.value {
			return false
		}
	}
	return true
}

// mustBeNew panics if there cannot be a new element for the step.
func (s *step) mustBeNew(path string) {
	if s.local == anyName {
		panic(&PathError{Path: path, Reason: `"*" cannot be added: a name is expected`})
	}
	for i, predicate := range s.predicates {
		for _, other := range s.predicates[:i] {
			if other.name == predicate.name && other.value != predicate.value {
				panic(&PathError{Path: path, Reason: fmt.Sprintf("%q cannot have two values", predicate.local)})
			}
		}
	}
}

// path parses a path and resolves its prefixes. For a nil element there is no table to resolve them
// with.
func (e *Element) path(path string, values []string) []step {
	reader := pathReader{path: path, values: values}
	steps := []step{reader.step()}
	for reader.at < len(path) {
		reader.expect('/')
		steps = append(steps, reader.step())
	}
	reader.end()
	e.resolve(path, steps)
	return steps
}

// step parses a path of one step, for a new element.
func (e *Element) step(path string, values []string) step {
	reader := pathReader{path: path, values: values}
	steps := []step{reader.step()}
	reader.end()
	e.resolve(path, steps)
	steps[0].mustBeNew(path)
	return steps[0]
}

func (e *Element) resolve(path string, steps []step) {
	if e == nil {
		return
	}
	for i := range steps {
		step := &steps[i]
		if step.prefix == "" {
			step.namespace = e.Namespace()
		} else {
			step.namespace = e.document.namespaceOf(path, step.prefix)
		}
		for i := range step.predicates {
			if prefix := step.predicates[i].prefix; prefix != "" {
				step.predicates[i].namespace = e.document.namespaceOf(path, prefix)
			}
		}
	}
}

// attrName parses the name of an attribute.
func (e *Element) attrName(text string) name {
	reader := pathReader{path: text}
	name := reader.attrName()
	reader.end()
	if e != nil && name.prefix != "" {
		name.namespace = e.document.namespaceOf(text, name.prefix)
	}
	return name
}

// namespaceOf looks up a prefix in the table.
func (d *Document) namespaceOf(path, prefix string) string {
	namespace, found := d.namespaces[prefix]
	if !found {
		panic(&PathError{Path: path, Reason: fmt.Sprintf("the prefix %q is unknown; Document.Namespace adds it", prefix)})
	}
	return namespace
}

// A pathReader parses a path. It panics with a *PathError.
type pathReader struct {
	path   string
	values []string
	at     int
	used   int // number of values
}

func (r *pathReader) step() step {
	var step step
	if r.peek() == '*' {
		r.at++
		step.local = anyName
	} else {
		step.name = r.qualifiedName()
	}
	for r.peek() == '[' {
		r.at++
		r.expect('@')
		predicate := predicate{name: r.attrName()}
		r.expect('=')
		predicate.value = r.value()
		r.expect(']')
		step.predicates = append(step.predicates, predicate)
	}
	return step
}

func (r *pathReader) attrName() name {
	name := r.qualifiedName()
	if name.prefix == "xmlns" || (name.prefix == "" && name.local == "xmlns") {
		panic(&PathError{Path: r.path, Reason: "xmlns is a namespace declaration, not an attribute"})
	}
	return name
}

func (r *pathReader) qualifiedName() name {
	first := r.name()
	if r.peek() != ':' {
		return name{local: first}
	}
	r.at++
	return name{prefix: first, local: r.name()}
}

func (r *pathReader) name() string {
	from := r.at
	if !isPathNameStart(r.peek()) {
		r.fail("a name is expected")
	}
	for isPathNameByte(r.peek()) {
		r.at++
	}
	return r.path[from:r.at]
}

// value reads a value in quotes, or takes the next argument for a "?".
func (r *pathReader) value() string {
	quote := r.peek()
	switch quote {
	case '?':
		if r.used == len(r.values) {
			panic(&PathError{Path: r.path, Reason: fmt.Sprintf("argument %d for a ? is missing", r.used+1)})
		}
		r.at++
		r.used++
		return r.values[r.used-1]
	case '\'', '"':
		length := strings.IndexByte(r.path[r.at+1:], quote)
		if length < 0 {
			r.fail("the value has no end")
		}
		from := r.at + 1
		r.at = from + length + 1
		return r.path[from : from+length]
	}
	r.fail("a value in quotes, or ?, is expected")
	return ""
}

func (r *pathReader) expect(char byte) {
	if r.peek() != char {
		r.fail(fmt.Sprintf("%q expected", string(char)))
	}
	r.at++
}

// end checks that the path and its arguments are used up.
func (r *pathReader) end() {
	if r.at < len(r.path) {
		r.fail("the end is expected")
	}
	if r.used != len(r.values) {
		panic(&PathError{Path: r.path, Reason: fmt.Sprintf("%d arguments for %d ?", len(r.values), r.used)})
	}
}

// peek returns the next byte, or 0 at the end.
func (r *pathReader) peek() byte {
	if r.at < len(r.path) {
		return r.path[r.at]
	}
	return 0
}

// fail names the character at which the path is wrong.
func (r *pathReader) fail(expected string) {
	position := utf8.RuneCountInString(r.path[:r.at]) + 1
	found := "the end"
	if r.at < len(r.path) {
		char, _ := utf8.DecodeRuneInString(r.path[r.at:])
		found = fmt.Sprintf("%q", string(char))
	}
	reason := fmt.Sprintf("at character %d: %s", position, expected)
	panic(&PathError{r.path, found + " " + reason, reason})
}

func isPathNameStart(c byte) bool {
	return c == '_' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isPathNameByte(c byte) bool {
	return isPathNameStart(c) || c == '-' || c == '.' || '0' <= c && c <= '9'
}
