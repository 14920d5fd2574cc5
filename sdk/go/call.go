package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"time"
	"unicode/utf8"
)

// A Call has the metadata of a call.
type Call struct {
	// Hook is the hook point, for example "onDefineDomain".
	Hook string
	// Attempt is 1, or 2 if a worker crashed during the first attempt or asked for a retry.
	Attempt int
	// Context is Boot, MigrationSource or MigrationTarget, or empty if KubeVirt states none.
	Context string
}

// Contexts of calls.
const (
	Boot            = "Boot"
	MigrationSource = "MigrationSource"
	MigrationTarget = "MigrationTarget"
)

// CallFrom returns the call of a hook's context, or the zero value for any other context.
func CallFrom(ctx context.Context) Call {
	if invocation := invocationFrom(ctx); invocation != nil {
		return invocation.Call
	}
	return Call{}
}

// WithCall returns a context from which CallFrom gets the call, for tests of hooks.
func WithCall(ctx context.Context, call Call) context.Context {
	return context.WithValue(ctx, invocationKey{}, &invocation{Call: call})
}

type invocationKey struct{}

func invocationFrom(ctx context.Context) *invocation {
	invocation, _ := ctx.Value(invocationKey{}).(*invocation)
	return invocation
}

// An invocation is a call with everything that is needed to run it and to respond.
type invocation struct {
	Call
	id      json.RawMessage // nil where there is no protocol
	hook    registered
	vmi     VMI
	subject []byte
	timeout time.Duration // 0 for none

	// The server's lock protects the following fields.
	cancelled bool
	cancel    context.CancelFunc
}

// run runs the hook and validates its result, which is nil for no change.
//
// The hook gets a separate goroutine, so that neither a panic nor runtime.Goexit stops the worker.
func (i *invocation) run(ctx context.Context) (result []byte, err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = &hookFault{"the hook called runtime.Goexit"}
		defer func() {
			if cause := recover(); cause != nil {
				err = newPanicError(cause)
			}
		}()
		// A copy: a hook may change it in place, and the result is compared with the original.
		result, err = i.hook.run(context.WithValue(ctx, invocationKey{}, i), i.vmi, bytes.Clone(i.subject))
	}()
	<-ended
	switch {
	case err != nil:
		return nil, err
	case i.hook.subject == nodeName || result == nil || bytes.Equal(result, i.subject):
		return nil, nil
	case !utf8.Valid(result):
		return nil, &hookFault{"the hook's result is not UTF-8"}
	case i.hook.subject == cloudInitData && !isObject(result):
		return nil, &hookFault{"the hook's cloud-init data is not a JSON object"}
	}
	return result, nil
}

// check validates the documents. A missing document is nil.
func (i *invocation) check() error {
	if !isObject(i.vmi) {
		return InvalidParamsf("vmi is missing or not an object")
	}
	switch {
	case i.hook.subject == cloudInitData && !isObject(i.subject):
		return InvalidParamsf("cloudInitData is missing or not an object")
	case i.hook.subject != cloudInitData && i.subject == nil:
		return InvalidParamsf("%s is missing or not a string", i.hook.subject)
	case !utf8.Valid(i.subject):
		return InvalidParamsf("%s is not UTF-8", i.hook.subject)
	}
	return nil
}

// isObject reports whether a text is a JSON object.
func isObject(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && text[0] == '{' && utf8.Valid(text) && json.Valid(text)
}
