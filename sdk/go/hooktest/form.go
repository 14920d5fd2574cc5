package hooktest

import (
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
)

// Namespaces that KubeVirt's types know.
const (
	qemu     = "http://libvirt.org/schemas/domain/qemu/1.0"
	kubevirt = "http://kubevirt.io"
)

// A form is how KubeVirt writes the domain that a hook has returned, when it calls the same hook
// again. It reads the domain into its types and writes those, so comments, elements in foreign
// namespaces or with an undeclared prefix, and attributes with a prefix are gone. A domain has at
// most one command line of QEMU, and in <metadata> only KubeVirt's own element.
//
// Not modeled are the order of elements, fields that the types lack, and empty elements that they
// add.
type form struct {
	name        string
	indentation string
	// prefix of QEMU's command line, which the root then declares. Without it, the command line has
	// a default namespace.
	prefix string
}

var (
	forSidecars = form{"as hook sidecars get it", "\t", "qemu"}
	forPlugins  = form{"as Plugins get it", "  ", ""}
)

// An element is one of the new document.
type element struct {
	name      string
	namespace string // that a tag declares, if the element around has another
	attrs     []xml.Attr
	text      string // of an element without children
	children  []*element
}

// rewrite returns a domain in this form.
func (f form) rewrite(domain string) (string, error) {
	reader := reader{form: f, decoder: xml.NewDecoder(strings.NewReader(strings.TrimPrefix(domain, "\ufeff")))}
	root, err := reader.read()
	if err != nil {
		return "", err
	}
	if line := reader.commandLine; line != nil {
		if f.prefix != "" {
			root.attrs = append(root.attrs, xml.Attr{Name: xml.Name{Local: "xmlns:" + f.prefix}, Value: qemu})
		}
		if len(line.children) > 0 {
			root.children = append(root.children, line)
		}
	}
	var out strings.Builder
	f.write(&out, root, "", 0, false)
	return out.String(), nil
}

// A reader reads what KubeVirt's types have.
type reader struct {
	form
	decoder     *xml.Decoder
	commandLine *element
}

func (r *reader) read() (*element, error) {
	var open []*element
	var root *element
	roots := "" // elements in the namespace of the root count as libvirt's
	for {
		token, err := r.decoder.Token()
		if errors.Is(err, io.EOF) && root != nil {
			return root, nil
		}
		if err != nil {
			return nil, err
		}
		switch token := token.(type) {
		case xml.StartElement:
			if root == nil {
				roots = token.Name.Space
			}
			if token.Name.Space == roots {
				token.Name.Space = ""
			}
			if len(open) == 1 && token.Name == (xml.Name{Space: qemu, Local: "commandline"}) {
				if err := r.readCommandLine(); err != nil {
					return nil, err
				}
				continue
			}
			namespace, known := place(token.Name, open)
			if !known {
				if err := r.decoder.Skip(); err != nil {
					return nil, err
				}
				continue
			}
			added := &element{name: token.Name.Local, namespace: namespace, attrs: plain(token.Attr)}
			if len(open) == 0 {
				root = added
			} else {
				parent := open[len(open)-1]
				parent.children = append(parent.children, added)
			}
			open = append(open, added)
		case xml.EndElement:
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				open[len(open)-1].text += string(token)
			}
		}
	}
}

// place returns the namespace of an element at its place, and whether KubeVirt's types have it.
func place(name xml.Name, open []*element) (namespace string, known bool) {
	inMetadata := len(open) > 1 && open[1].name == "metadata"
	switch {
	case inMetadata && len(open) == 2:
		return kubevirt, name == xml.Name{Space: kubevirt, Local: "kubevirt"}
	case inMetadata:
		return kubevirt, true // the types compare the name alone
	}
	return "", name.Space == ""
}

// readCommandLine reads a command line of QEMU up to its end.
func (r *reader) readCommandLine() error {
	if r.commandLine == nil {
		r.commandLine = r.item("commandline")
	}
	for {
		token, err := r.decoder.Token()
		if err != nil {
			return err
		}
		switch token := token.(type) {
		case xml.EndElement:
			return nil
		case xml.StartElement:
			// The types of Plugins compare the name alone.
			known := r.prefix == "" || token.Name.Space == qemu
			if known && (token.Name.Local == "arg" || token.Name.Local == "env") {
				item := r.item(token.Name.Local)
				item.attrs = plain(token.Attr)
				r.commandLine.children = append(r.commandLine.children, item)
			}
			if err := r.decoder.Skip(); err != nil {
				return err
			}
		}
	}
}

// item returns an element of QEMU's command line.
func (r *reader) item(name string) *element {
	if r.prefix != "" {
		return &element{name: r.prefix + ":" + name}
	}
	return &element{name: name, namespace: qemu}
}

// plain returns the attributes without a prefix.
func plain(attrs []xml.Attr) []xml.Attr {
	return slices.DeleteFunc(attrs, func(attr xml.Attr) bool {
		return attr.Name.Space != "" || attr.Name.Local == "xmlns"
	})
}

// write writes an element as encoding/xml does.
func (f form) write(out *strings.Builder, e *element, outer string, depth int, inline bool) {
	out.WriteString("<" + e.name)
	attrs := e.attrs
	if e.namespace != outer {
		attrs = append([]xml.Attr{{Name: xml.Name{Local: "xmlns"}, Value: e.namespace}}, attrs...)
	}
	for _, attr := range attrs {
		out.WriteString(" " + attr.Name.Local + `="`)
		_ = xml.EscapeText(out, []byte(attr.Value)) // a strings.Builder has no errors
		out.WriteString(`"`)
	}
	out.WriteString(">")
	// For Plugins, the content of metadata is a text to libvirt's types.
	inline = inline || (f.prefix == "" && depth == 1 && e.name == "metadata")
	for _, child := range e.children {
		if !inline {
			out.WriteString("\n" + strings.Repeat(f.indentation, depth+1))
		}
		f.write(out, child, e.namespace, depth+1, inline)
	}
	switch {
	case len(e.children) == 0 && strings.TrimSpace(e.text) != "":
		_ = xml.EscapeText(out, []byte(e.text))
	case len(e.children) > 0 && !inline:
		out.WriteString("\n" + strings.Repeat(f.indentation, depth))
	}
	out.WriteString("</" + e.name + ">")
}
