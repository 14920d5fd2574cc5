package hook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// A VMI is a VirtualMachineInstance as the JSON that Kubernetes has for it: one object.
type VMI json.RawMessage

// Metadata is what Kubernetes knows of every object.
type Metadata struct {
	Name, Namespace     string
	Annotations, Labels map[string]string
}

// Metadata decodes the VMI's metadata.
func (v VMI) Metadata() (Metadata, error) {
	var vmi struct{ Metadata Metadata }
	err := v.Decode(&vmi)
	return vmi.Metadata, err
}

// Decode decodes the VMI, as json.Unmarshal does. The error is one of [InvalidParams], which names the
// member and not its value.
func (v VMI) Decode(target any) error { return decode("vmi", v, target) }

// MarshalJSON is the JSON itself.
func (v VMI) MarshalJSON() ([]byte, error) { return json.RawMessage(v).MarshalJSON() }

// CloudInitData is KubeVirt's type of this name as JSON: one object, with the members DataSource,
// UserData, NetworkData and others.
type CloudInitData json.RawMessage

// Decode decodes the data, as json.Unmarshal does. The error is one of [InvalidParams], which names the
// member and not its value.
func (d CloudInitData) Decode(target any) error { return decode("cloudInitData", d, target) }

// MarshalJSON is the JSON itself.
func (d CloudInitData) MarshalJSON() ([]byte, error) { return json.RawMessage(d).MarshalJSON() }

// With is the data with a member set to a value, as json.Marshal has it. Every byte that does not belong
// to the member stays as it is.
func (d CloudInitData) With(member string, value any) (CloudInitData, error) {
	text, err := marshal(value)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(d))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, InvalidParams("cloudInitData is not an object")
	}
	from, to := -1, -1
	last := int(decoder.InputOffset()) // where a new member goes
	added := []byte{}
	for decoder.More() {
		name, err := decoder.Token()
		var old json.RawMessage
		if err == nil {
			err = decoder.Decode(&old)
		}
		if err != nil {
			return nil, InvalidParams("cloudInitData is not JSON")
		}
		last, added = int(decoder.InputOffset()), []byte{','}
		if name == member {
			from, to = last-len(old), last
		}
	}
	if from < 0 {
		name, err := marshal(member)
		if err != nil {
			return nil, err
		}
		from, to = last, last
		text = bytes.Join([][]byte{added, name, {':'}, text}, nil)
	}
	return bytes.Join([][]byte{d[:from], text, d[to:]}, nil), nil
}

func decode(document string, text []byte, target any) error {
	err := json.Unmarshal(text, target)
	var mismatch *json.UnmarshalTypeError
	var misuse *json.InvalidUnmarshalError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &misuse):
		return err // the hook's own fault
	case errors.As(err, &mismatch):
		return InvalidParams("%s: %s cannot be read as %s", document, mismatch.Field, mismatch.Type)
	}
	return InvalidParams("%s cannot be read", document)
}

// marshal is JSON in which nothing is escaped that need not be.
func marshal(value any) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, fmt.Errorf("cannot write as JSON: %w", err)
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n")), nil
}
