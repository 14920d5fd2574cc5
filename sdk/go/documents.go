package hook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// A VMI is a VirtualMachineInstance as Kubernetes JSON: one object.
type VMI json.RawMessage

// Metadata has the common metadata of Kubernetes objects.
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

// Decode decodes the VMI, as json.Unmarshal does. It returns an error of [InvalidParams], which
// names the field but not its value.
func (v VMI) Decode(target any) error { return decode("vmi", v, target) }

// MarshalJSON returns the JSON unchanged.
func (v VMI) MarshalJSON() ([]byte, error) { return json.RawMessage(v).MarshalJSON() }

// CloudInitData is KubeVirt's CloudInitData as JSON: one object with the fields DataSource,
// UserData, NetworkData and others.
type CloudInitData json.RawMessage

// Decode decodes the data, as json.Unmarshal does. It returns an error of [InvalidParams], which
// names the field but not its value.
func (d CloudInitData) Decode(target any) error { return decode("cloudInitData", d, target) }

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
		return nil, InvalidParams("cloudInitData is not an object")
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
			return nil, InvalidParams("cloudInitData is not JSON")
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

func decode(document string, text []byte, target any) error {
	err := json.Unmarshal(text, target)
	var mismatch *json.UnmarshalTypeError
	var misuse *json.InvalidUnmarshalError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &misuse):
		return err // a bug in the hook
	case errors.As(err, &mismatch):
		return InvalidParams("%s: %s cannot be decoded as %s", document, mismatch.Field, mismatch.Type)
	}
	return InvalidParams("%s cannot be decoded", document)
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
