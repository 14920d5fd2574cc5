package hook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// maxJSONDepth is the depth to which encoding/json decodes nested values.
const maxJSONDepth = 10000

// A message is a message from the shim. Its objects are decoded into maps: for structs,
// encoding/json ignores the case of field names, but the protocol does not.
type message struct {
	id       json.RawMessage // nil in a notification
	method   string
	params   json.RawMessage
	attached map[string][]byte
}

// readMessage returns the next message with its attachments, or io.EOF if the input ends between
// two messages. After any other error the stream cannot be resynchronized.
func readMessage(input io.Reader) (*message, error) {
	frame, err := readFrame(input)
	if err != nil {
		return nil, err
	}
	if !utf8.Valid(frame) {
		return nil, errors.New("a message is not UTF-8")
	}
	members, err := object(frame)
	if err != nil {
		members, err = object(outline(frame))
	}
	if err != nil {
		// Without the decoder's text, which may quote the message.
		return nil, errors.New("a message is not a JSON object")
	}
	message := &message{id: members["id"], params: members["params"]}
	message.method, _ = text(members["method"])
	var names []string
	if list := members["attachments"]; list != nil {
		if json.Unmarshal(list, &names) != nil {
			return nil, errors.New(`"attachments" is not an array of names`)
		}
	}
	message.attached = make(map[string][]byte, len(names))
	for _, name := range names {
		attached, err := readFrame(input)
		if errors.Is(err, io.EOF) {
			return nil, errors.New("stdin ended before an attachment")
		}
		if err != nil {
			return nil, fmt.Errorf("attachment: %w", err)
		}
		message.attached[name] = attached
	}
	return message, nil
}

// call converts a request to the call of a hook.
func (m *message) call(hook registered) (*invocation, error) {
	params, err := object(m.params)
	if err != nil {
		return nil, errNoParams
	}
	call := &invocation{id: m.id, hook: hook, vmi: VMI(m.attached["vmi"]), subject: m.attached[string(hook.subject)]}
	if call.vmi == nil {
		call.vmi = VMI(params["vmi"])
	}
	if call.subject == nil {
		call.subject = params[string(hook.subject)]
		if hook.subject != cloudInitData {
			text, ok := text(call.subject)
			call.subject = nil
			if ok {
				call.subject = []byte(text)
			}
		}
	}
	call.Hook, call.Attempt = m.method, 1
	// All fields of the invocation are optional.
	invocation, _ := object(params["invocation"])
	if attempt, ok := number(invocation["attempt"]); ok {
		call.Attempt = int(attempt)
	}
	call.Context, _ = text(invocation["context"])
	if left, ok := number(invocation["deadlineMs"]); ok {
		call.timeout = time.Duration(min(max(left, 1), math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	}
	return call, call.check()
}

// response returns the response to a request. The member is "result" or "error".
func response(id json.RawMessage, member string, value []byte, attachments ...string) []byte {
	var text bytes.Buffer
	text.Grow(len(value) + 100)
	fmt.Fprintf(&text, `{"jsonrpc":"2.0","id":%s,"%s":`, id, member)
	text.Write(value)
	if len(attachments) > 0 {
		fmt.Fprintf(&text, `,"attachments":["%s"]`, strings.Join(attachments, `","`))
	}
	text.WriteByte('}')
	return text.Bytes()
}

// errorResponse returns the error response to a request, with optional data.
func errorResponse(id json.RawMessage, err *failure, data any) []byte {
	if err.retryable {
		data = map[string]bool{"retryable": true}
	}
	value, _ := marshal(struct { // cannot fail for these types
		Code    int    `json:"code"`
		Message string `json:"message"`
		Data    any    `json:"data,omitempty"`
	}{err.code, err.Error(), data})
	return response(id, "error", value)
}

// object decodes a JSON object to its fields.
func object(value []byte) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil {
		return nil, err
	}
	if members == nil {
		return nil, errors.New("null")
	}
	return members, nil
}

// outline returns the JSON of a message with null in place of each object and array in the members
// of its params, such as documents. encoding/json rejects a message that is nested too deeply, but
// this is the fault of one call.
func outline(frame []byte) []byte {
	var kept []byte
	depth, deepest, end := 0, 0, 0
	quoted, escaped := false, false
	for at, char := range frame {
		switch {
		case escaped:
			escaped = false
		case quoted:
			quoted, escaped = char != '"', char == '\\'
		case char == '"':
			quoted = true
		case char == '{' || char == '[':
			depth++
			deepest = max(deepest, depth)
			if depth == 3 {
				kept = append(append(kept, frame[end:at]...), "null"...)
			}
		case char == '}' || char == ']':
			if depth == 3 {
				end = at + 1
			}
			depth--
		}
	}
	if deepest <= maxJSONDepth {
		return frame // it has another fault
	}
	return append(kept, frame[end:]...)
}

// text decodes a JSON string.
func text(value json.RawMessage) (string, bool) {
	var text *string
	if json.Unmarshal(value, &text) != nil || text == nil {
		return "", false
	}
	return *text, true
}

// number decodes a JSON integer.
func number(value json.RawMessage) (int64, bool) {
	var number *int64
	if json.Unmarshal(value, &number) != nil || number == nil {
		return 0, false
	}
	return *number, true
}
