package xmledit

import "strconv"

const xmlnsNamespace = "http://www.w3.org/2000/xmlns/"

// A binding is a namespace declaration. The prefix of a default namespace is empty.
type binding struct{ prefix, namespace string }

// A name is the name of an element or an attribute in a path, resolved with the document's table.
type name struct{ prefix, local, namespace string }

// Namespace returns the element's namespace, or an empty string if it has none.
func (e *Element) Namespace() string {
	if e == nil {
		return ""
	}
	namespace, _ := e.lookup(e.prefix)
	return namespace
}

// lookup returns the namespace of a prefix at this element, and whether it is known. A prefix that
// the document does not declare means what the table says.
func (e *Element) lookup(prefix string) (namespace string, known bool) {
	if namespace, declared := e.declared(prefix); declared || prefix == "" {
		return namespace, true
	}
	namespace, known = e.document.namespaces[prefix]
	return namespace, known
}

// declared returns the namespace that the document declares for a prefix at this element.
func (e *Element) declared(prefix string) (namespace string, declared bool) {
	for ; e != nil; e = e.parent {
		for _, binding := range e.bindings {
			if binding.prefix == prefix {
				return binding.namespace, true
			}
		}
	}
	if prefix == "xml" {
		return xmlNamespace, true
	}
	return "", false
}

// prefixFor returns a prefix that is declared for a namespace at this element: the wanted one, for
// an element none if that is the default namespace, or that of the nearest declaration.
func (e *Element) prefixFor(wanted, namespace string, isElement bool) (prefix string, ok bool) {
	if found, declared := e.declared(wanted); found == namespace && (declared || wanted == "") {
		return wanted, true
	}
	if namespace == "" {
		return "", false // only a default namespace that is empty helps
	}
	if found, declared := e.declared(""); isElement && declared && found == namespace {
		return "", true
	}
	for at := e; at != nil; at = at.parent {
		for _, binding := range at.bindings {
			if binding.prefix == "" || binding.namespace != namespace {
				continue
			}
			if found, _ := e.declared(binding.prefix); found == namespace {
				return binding.prefix, true
			}
		}
	}
	if namespace == xmlNamespace {
		return "xml", true // as if something around the root declared it
	}
	return "", false
}

// attrPrefix returns the prefix of a new attribute, and declares it if that is necessary. A prefix
// that means another namespace here is never declared again: names in the element may depend on it.
func (e *Element) attrPrefix(wanted name) string {
	if wanted.prefix == "" {
		return ""
	}
	if prefix, ok := e.prefixFor(wanted.prefix, wanted.namespace, false); ok {
		return prefix
	}
	if _, taken := e.declared(wanted.prefix); !taken {
		e.top().declare(wanted.prefix, wanted.namespace)
		return wanted.prefix
	}
	for number := 1; ; number++ {
		prefix := wanted.prefix + strconv.Itoa(number)
		_, known := e.document.namespaces[prefix]
		if _, taken := e.declared(prefix); !taken && !known {
			e.declare(prefix, wanted.namespace)
			return prefix
		}
	}
}

// top returns the root, or the removed element around this one.
func (e *Element) top() *Element {
	for e.parent != nil && !e.removed {
		e = e.parent
	}
	return e
}

// declare adds a declaration to the element's tag.
func (e *Element) declare(prefix, namespace string) {
	if prefix == "" {
		e.addAttr("", "xmlns", namespace)
	} else {
		e.addAttr("xmlns", prefix, namespace)
	}
	e.bindings = append(e.bindings, binding{prefix, namespace})
}

// join returns a name with its prefix.
func join(prefix, local string) string {
	if prefix == "" {
		return local
	}
	return prefix + ":" + local
}
