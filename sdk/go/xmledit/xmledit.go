// Package xmledit edits XML documents and keeps every byte that is not edited.
//
// A document that is decoded and encoded with encoding/xml loses white space, comments, and the
// order and quotes of attributes, and its namespace declarations move. Here, what is not edited is
// written as it was read:
//
//	worker.OnDefineDomain(xmledit.Hook(func(ctx context.Context, vmi hook.VMI, doc *xmledit.Document) error {
//		doc.Ensure("os/smbios").SetAttr("mode", "sysinfo")
//		return nil
//	}))
//
// # Paths
//
// A path has steps with "/" between them, below the element that it is asked of:
//
//	sysinfo[@type='smbios']/baseBoard/entry[@name=?]
//
// A step is a name, or "*" for any, and may have predicates for attributes. Each "?" stands for the
// next argument after the path: pass values from outside that way. Nothing else is a path. A string
// that is not a path or a name is a mistake in the program, as an invalid regular expression is for
// regexp.MustCompile: the method panics with a [*PathError].
//
// A prefix in a path or a name stands for a namespace of the document's table, which has "qemu" and
// "xml"; [Document.Namespace] adds others. The prefix that the document uses does not matter. New
// elements get a declaration where they need one.
//
// # Edits
//
// What already has the value stays as it is written. New elements follow the white space of their
// neighbors. An edit that XML does not allow, such as a text with a control character, changes
// nothing; [Document.Bytes] returns the first such error, so a chain of edits needs one check.
//
// All methods of a nil *Element may be called: there is nothing to read, and writes are ignored. So
// doc.Find("os/smbios").Attr("mode") needs no checks in between.
package xmledit

import (
	"context"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/internal/words"
)

// maxDepth is the maximum nesting depth of elements. It is the limit of libxml2, which libvirt
// uses, and of the shim.
const maxDepth = 255

// Namespaces that are in the table of every document.
const (
	xmlNamespace  = "http://www.w3.org/XML/1998/namespace"
	qemuNamespace = "http://libvirt.org/schemas/domain/qemu/1.0"
)

// A Document is a well-formed XML document. It is not safe for concurrent use.
type Document struct {
	original      string
	before, after string // around the root: declaration, comments, white space
	root          *Element
	namespaces    map[string]string // by prefix
	err           error             // the first edit that XML does not allow
}

// Hook returns a function for [hook.Worker.OnDefineDomain] that edits the domain as a document.
//
// A domain that is not well-formed is an error of [hook.InvalidParamsf]. If the function changes
// nothing, neither does the hook.
func Hook(edit func(ctx context.Context, vmi hook.VMI, doc *Document) error) hook.DomainFunc {
	if edit == nil {
		return nil // refused when it is registered
	}
	return func(ctx context.Context, vmi hook.VMI, domain []byte) ([]byte, error) {
		document, err := Parse(domain)
		if err != nil {
			return nil, hook.InvalidParamsf("domain: %w", err)
		}
		if err := edit(ctx, vmi, document); err != nil {
			return nil, err
		}
		changed, err := document.Bytes()
		if err != nil || string(changed) == document.original {
			return nil, err
		}
		return changed, nil
	}
}

// Parse parses a document, which must be well-formed, in UTF-8, and without a document type. An
// error is a [*SyntaxError].
func Parse(document []byte) (*Document, error) {
	result := &Document{
		original:   string(document),
		namespaces: map[string]string{"xml": xmlNamespace, "qemu": qemuNamespace},
	}
	parser := parser{document: result, text: result.original}
	if fault := parser.parse(); fault != nil {
		return nil, fault.at(result.original)
	}
	return result, nil
}

// Root returns the document's outermost element.
func (d *Document) Root() *Element { return d.root }

// Find is [Element.Find] of the root.
func (d *Document) Find(path string, values ...string) *Element {
	return d.root.Find(path, values...)
}

// FindAll is [Element.FindAll] of the root.
func (d *Document) FindAll(path string, values ...string) []*Element {
	return d.root.FindAll(path, values...)
}

// Ensure is [Element.Ensure] of the root.
func (d *Document) Ensure(path string, values ...string) *Element {
	return d.root.Ensure(path, values...)
}

// Append is [Element.Append] of the root.
func (d *Document) Append(step string, values ...string) *Element {
	return d.root.Append(step, values...)
}

// Namespace adds a prefix for paths and names to the document's table. It panics with a
// [*PathError] if the prefix is not a name, or stands for another namespace already.
func (d *Document) Namespace(prefix, namespace string) {
	reader := pathReader{path: prefix}
	reader.name()
	reader.end()
	known, found := d.namespaces[prefix]
	switch {
	case found && known != namespace, prefix == "xmlns":
		panic(&PathError{Path: prefix, Reason: "the prefix stands for another namespace"})
	case namespace == "" || !isText(namespace):
		panic(&PathError{Path: prefix, Reason: "the namespace is empty, or has a character that XML does not allow"})
	case namespace == xmlnsNamespace || (namespace == xmlNamespace && prefix != "xml"):
		panic(&PathError{Path: prefix, Reason: "XML reserves the namespace"})
	}
	d.namespaces[prefix] = namespace
}

// Bytes returns the document with its edits. Without edits, it equals the parsed document.
//
// An error says what the first edit was that XML does not allow.
func (d *Document) Bytes() ([]byte, error) {
	if d.err != nil {
		return nil, d.err
	}
	out := make([]byte, 0, len(d.original)+len(d.original)/8)
	out = append(out, d.before...)
	out = d.root.appendTo(out)
	return append(out, d.after...), nil
}

// fail keeps the first error.
func (d *Document) fail(e *Element, reason string) {
	if d.err == nil {
		d.err = words.WithPlace("<"+e.written()+">", reason)
	}
}
