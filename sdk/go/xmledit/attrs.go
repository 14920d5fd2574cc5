package xmledit

import "slices"

// attributes are those of one tag, namespace declarations included. A change takes a time that does
// not grow with their number.
type attributes struct {
	list     []attr       // a removed one has no text
	removed  int          // the number of those
	index    map[name]int // by prefix and local name; nil if there are few
	prefixes []string     // of the names, without xmlns
}

// newAttributes takes over the attributes of a tag.
func newAttributes(list []attr) *attributes {
	attrs := &attributes{list: list}
	for i := range list {
		attrs.know(i)
	}
	return attrs
}

// know adds the last attribute that is in use to the index and the prefixes.
func (a *attributes) know(i int) {
	attr := &a.list[i]
	if attr.prefix != "" && attr.prefix != "xmlns" && !slices.Contains(a.prefixes, attr.prefix) {
		a.prefixes = append(a.prefixes, attr.prefix)
	}
	switch {
	case a.index != nil:
		a.index[name{prefix: attr.prefix, local: attr.local}] = i
	case i == fewAttrs:
		a.index = make(map[name]int, len(a.list))
		for i := range a.list[:i+1] {
			a.index[name{prefix: a.list[i].prefix, local: a.list[i].local}] = i
		}
	}
}

// at returns the position of an attribute by its name as written, or -1.
func (a *attributes) at(prefix, local string) int {
	if a.index != nil {
		if i, found := a.index[name{prefix: prefix, local: local}]; found {
			return i
		}
		return -1
	}
	return slices.IndexFunc(a.list, func(attr attr) bool {
		return attr.local == local && attr.prefix == prefix && attr.text != ""
	})
}

// add adds an attribute after the last one.
func (a *attributes) add(added attr) {
	a.list = append(a.list, added)
	a.know(len(a.list) - 1)
}

// remove removes the attribute at a position.
func (a *attributes) remove(i int) {
	delete(a.index, name{prefix: a.list[i].prefix, local: a.list[i].local})
	a.list[i] = attr{}
	a.removed++
	if a.removed > len(a.list)/2 {
		*a = *newAttributes(slices.DeleteFunc(a.list, func(attr attr) bool { return attr.text == "" }))
	}
}

// attributes returns those of the tag.
func (e *Element) attributes() *attributes {
	if e.attrs == nil {
		tag, _ := readTag(e.tag, 0, nil) // was read before
		e.attrs = newAttributes(tag.attrs)
	}
	return e.attrs
}

// split takes the tag apart, so that its attributes can change.
func (e *Element) split() *attributes {
	attrs := e.attributes()
	if !e.isSplit {
		begin := 1 + len(e.written())
		end := begin
		for i := range attrs.list {
			end += len(attrs.list[i].text)
		}
		e.tag, e.tail, e.isSplit = e.tag[:begin], e.tag[end:], true
	}
	return attrs
}

// find returns the position of an attribute, or -1.
func (e *Element) find(wanted name) int {
	if e == nil {
		return -1
	}
	attrs := e.attributes()
	if wanted.prefix == "" {
		return attrs.at("", wanted.local)
	}
	for _, prefix := range attrs.prefixes {
		if namespace, known := e.lookup(prefix); known && namespace == wanted.namespace {
			if found := attrs.at(prefix, wanted.local); found >= 0 {
				return found
			}
		}
	}
	return -1
}

// addAttr adds an attribute, or a declaration, after the last one.
func (e *Element) addAttr(prefix, local, value string) {
	start := " " + join(prefix, local) + "="
	text := start + `"` + escapeValue(value, '"') + `"`
	e.split().add(attr{prefix: prefix, local: local, text: text, value: len(start)})
}
