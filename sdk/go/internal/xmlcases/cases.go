// Package xmlcases does the edits of sdk/vectors/xml.json, whose README describes the fields.
package xmlcases

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sidecar-shim.example/hook/xmledit"
)

// A Case is a document and edits of it.
type Case struct {
	About      string
	Document   Text
	Namespaces map[string]string
	Steps      []json.RawMessage
	Error      string
	Says       string
	Expect     Text
}

// A Text is a string in JSON, or an array of its lines.
type Text string

// UnmarshalJSON decodes either of the forms.
func (t *Text) UnmarshalJSON(data []byte) error {
	if !bytes.HasPrefix(data, []byte("[")) {
		return json.Unmarshal(data, (*string)(t))
	}
	var lines []string
	err := json.Unmarshal(data, &lines)
	*t = Text(strings.Join(lines, "\n"))
	return err
}

// A step is one edit. A pointer is nil where the field is null or missing.
type step struct {
	Do, On, Path, Name, Value, Prefix, Other string
	Values                                   []string
	As                                       json.RawMessage
	Is, Namespace                            *string
	Are                                      [][2]string
	Error, Says                              string
}

// Errors of steps in the vectors.
const (
	pathError  = "path"
	valueError = "value"
)

// Apply does the case's edits. An error says which step found something else than it should.
//
// A function forgets the document's error, and returns it.
func (c *Case) Apply(document *xmledit.Document, forget func(document *xmledit.Document) error) error {
	for prefix, namespace := range c.Namespaces {
		document.Namespace(prefix, namespace)
	}
	run := run{document: document, elements: map[string]*xmledit.Element{"root": document.Root()}}
	for number, text := range c.Steps {
		var step step
		if err := json.Unmarshal(text, &step); err != nil {
			return fmt.Errorf("step %d: %w", number+1, err)
		}
		failed, message, err := run.try(&step)
		if refused := forget(document); refused != nil {
			failed, message = valueError, refused.Error()
		}
		switch {
		case failed != step.Error:
			err = fmt.Errorf("the error %q (%s), not %q", failed, message, step.Error)
		case !strings.Contains(message, step.Says):
			err = fmt.Errorf("the error says %q, without %q", message, step.Says)
		case failed != "":
			err = nil
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", number+1, err)
		}
	}
	return nil
}

// A run has the elements that the steps have named.
type run struct {
	document *xmledit.Document
	elements map[string]*xmledit.Element
}

// try does a step, which may fail as a whole.
func (r *run) try(step *step) (failed, message string, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			mistake, ok := cause.(*xmledit.PathError)
			if !ok {
				panic(cause)
			}
			failed, message = pathError, mistake.Error()
		}
	}()
	element, found := r.elements[step.On]
	if !found {
		return "", "", fmt.Errorf("no element has the name %q", step.On)
	}
	return "", "", r.do(step, element)
}

func (r *run) do(step *step, element *xmledit.Element) error {
	switch step.Do {
	case "find":
		return r.name(step, element.Find(step.Path, step.Values...))
	case "find_all":
		return r.nameAll(step, element.FindAll(step.Path, step.Values...))
	case "ensure":
		return r.name(step, element.Ensure(step.Path, step.Values...))
	case "append":
		return r.name(step, element.Append(step.Path, step.Values...))
	case "insert_before":
		return r.name(step, element.InsertBefore(step.Path, step.Values...))
	case "parent":
		return r.name(step, element.Parent())
	case "remove":
		element.Remove()
	case "namespace":
		r.document.Namespace(step.Prefix, step.Value)
	case "set":
		element.SetAttr(step.Name, step.Value)
	case "remove_attribute":
		element.RemoveAttr(step.Name)
	case "set_text":
		element.SetText(step.Value)
	case "get":
		value, ok := element.Attr(step.Name)
		return step.compare(value, ok)
	case "text":
		return step.compare(element.Text(), true)
	case "name":
		if step.Namespace != nil && element.Namespace() != *step.Namespace {
			return fmt.Errorf("the namespace %q, not %q", element.Namespace(), *step.Namespace)
		}
		return step.compare(element.Name(), true)
	case "attributes":
		var found [][2]string
		for _, attr := range element.Attrs() {
			found = append(found, [2]string{attr.Name, attr.Value})
		}
		if !slices.Equal(found, step.Are) {
			return fmt.Errorf("the attributes %q, not %q", found, step.Are)
		}
	case "same":
		if element != r.elements[step.Other] {
			return errors.New("not the same element")
		}
	default:
		return fmt.Errorf("no such operation: %q", step.Do)
	}
	return nil
}

// compare compares a value with the one that must be found.
func (s *step) compare(value string, found bool) error {
	if found != (s.Is != nil) || (found && value != *s.Is) {
		wanted := "none"
		if s.Is != nil {
			wanted = fmt.Sprintf("%q", *s.Is)
		}
		return fmt.Errorf("%q, %t, not %s", value, found, wanted)
	}
	return nil
}

// name gives the result its name.
func (r *run) name(step *step, element *xmledit.Element) error {
	var name *string
	if err := json.Unmarshal(step.As, &name); err != nil {
		return err
	}
	if (name == nil) != (element == nil) {
		return fmt.Errorf("an element: %t", element != nil)
	}
	if name != nil {
		r.elements[*name] = element
	}
	return nil
}

func (r *run) nameAll(step *step, elements []*xmledit.Element) error {
	var names []string
	if err := json.Unmarshal(step.As, &names); err != nil {
		return err
	}
	if len(names) != len(elements) {
		return fmt.Errorf("%d elements, not %d", len(elements), len(names))
	}
	for i, name := range names {
		r.elements[name] = elements[i]
	}
	return nil
}
