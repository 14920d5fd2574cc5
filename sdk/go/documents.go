package hook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A VMI is a VirtualMachineInstance as Kubernetes JSON: one object. Its methods find nothing where
// something is missing or null.
type VMI json.RawMessage

// A Value is a value in a VMI. It is nil if there is none, or null; all its methods may be called
// then.
type Value struct {
	json json.RawMessage
	path string
}

// Name returns the VM's name.
func (v VMI) Name() string {
	name, _ := v.At("metadata.name").Text()
	return name
}

// Namespace returns the VM's namespace.
func (v VMI) Namespace() string {
	namespace, _ := v.At("metadata.namespace").Text()
	return namespace
}

// Label returns the value of a label, and whether the VM has it.
func (v VMI) Label(name string) (value string, ok bool) {
	return v.At("metadata.labels").member(name).Text()
}

// Annotation returns the value of an annotation, and whether the VM has it.
func (v VMI) Annotation(name string) (value string, ok bool) {
	return v.At("metadata.annotations").member(name).Text()
}

// At returns the value at a path, or nil if there is none. The path is names of fields with dots
// between them, or numbers for elements of arrays: "spec.domain.memory.hugepages" or
// "spec.networks.0.name".
func (v VMI) At(path string) *Value {
	value := &Value{json: json.RawMessage(v)}
	for _, name := range strings.Split(path, ".") {
		value = value.member(name)
	}
	if value != nil {
		value.path = path
	}
	return value
}

// Decode decodes the VMI, as json.Unmarshal does: into a struct with the fields that the hook
// needs, or into KubeVirt's own type. It returns an error of [InvalidParamsf], which names the
// field but not its value.
func (v VMI) Decode(target any) error { return decode("vmi", "", v, target) }

// MarshalJSON returns the JSON unchanged.
func (v VMI) MarshalJSON() ([]byte, error) { return json.RawMessage(v).MarshalJSON() }

// Text returns a string, and whether the value is one.
func (v *Value) Text() (value string, ok bool) {
	if v == nil {
		return "", false
	}
	return text(v.json)
}

// Decode decodes the value, as json.Unmarshal does. Without a value, the target stays as it is. The
// error is one of [InvalidParamsf], which names the field but not its value.
func (v *Value) Decode(target any) error {
	if v == nil {
		return nil
	}
	return decode("vmi", v.path, v.json, target)
}

// MarshalJSON returns the JSON unchanged.
func (v *Value) MarshalJSON() ([]byte, error) {
	if v == nil {
		return []byte("null"), nil
	}
	return v.json.MarshalJSON()
}

// member returns the field of an object, or the element of an array.
func (v *Value) member(name string) *Value {
	if v == nil {
		return nil
	}
	var found json.RawMessage
	switch trimmed := bytes.TrimLeft(v.json, " \t\r\n"); {
	case bytes.HasPrefix(trimmed, []byte("{")):
		fields, _ := object(v.json) // nothing in what is not valid
		found = fields[name]
	case bytes.HasPrefix(trimmed, []byte("[")):
		var elements []json.RawMessage
		index, err := strconv.ParseUint(name, 10, 31)
		if err == nil && json.Unmarshal(v.json, &elements) == nil && index < uint64(len(elements)) {
			found = elements[index]
		}
	}
	if found == nil || string(found) == "null" {
		return nil
	}
	return &Value{json: found}
}

// CloudInitData is KubeVirt's CloudInitData as JSON: one object with the fields DataSource,
// UserData, NetworkData and others.
type CloudInitData json.RawMessage

// Decode decodes the data, as json.Unmarshal does. It returns an error of [InvalidParamsf], which
// names the field but not its value.
func (d CloudInitData) Decode(target any) error { return decode("cloudInitData", "", d, target) }

// MarshalJSON returns the JSON unchanged.
func (d CloudInitData) MarshalJSON() ([]byte, error) { return json.RawMessage(d).MarshalJSON() }

// With returns the data with a field set to a value, encoded as by json.Marshal. All bytes outside
// the field stay the same.
func (d CloudInitData) With(field string, value any) (CloudInitData, error) {
	text, err := marshal(value)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(d))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, InvalidParamsf("cloudInitData is not an object")
	}
	from, to := -1, -1
	last := int(decoder.InputOffset()) // position of a new field
	added := []byte{}
	for decoder.More() {
		name, err := decoder.Token()
		var old json.RawMessage
		if err == nil {
			err = decoder.Decode(&old)
		}
		if err != nil {
			return nil, InvalidParamsf("cloudInitData is not JSON")
		}
		last, added = int(decoder.InputOffset()), []byte{','}
		if name == field {
			from, to = last-len(old), last
		}
	}
	if from < 0 {
		name, err := marshal(field)
		if err != nil {
			return nil, err
		}
		from, to = last, last
		text = bytes.Join([][]byte{added, name, {':'}, text}, nil)
	}
	return bytes.Join([][]byte{d[:from], text, d[to:]}, nil), nil
}

// decode decodes a value at a path in a document, which is empty for the document itself.
func decode(document, path string, text []byte, target any) error {
	err := json.Unmarshal(text, target)
	var mismatch *json.UnmarshalTypeError
	var misuse *json.InvalidUnmarshalError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &misuse):
		return err // a bug in the hook
	case errors.As(err, &mismatch):
		return InvalidParamsf("%s%s cannot be decoded as %s", document, fieldText(path, mismatch.Field), mismatch.Type)
	}
	return InvalidParamsf("%s%s cannot be decoded", document, fieldText(path))
}

// fieldText returns the names of a path for the text of an error.
func fieldText(names ...string) string {
	names = slices.DeleteFunc(names, func(name string) bool { return name == "" })
	if len(names) == 0 {
		return ""
	}
	return ": " + strings.Join(names, ".")
}

// marshal encodes a value as JSON, with as few escapes as possible.
func marshal(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("cannot encode as JSON: %w", err)
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}
