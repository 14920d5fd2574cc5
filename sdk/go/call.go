package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
	"unicode/utf8"
)

// A Call is what a hook is told of its call, beside the documents and the context.
type Call struct {
	// Hook is the name of the hook, "onDefineDomain" for example.
	Hook string
	// Attempt is 1, or 2 after a worker has died over the call or has asked for a retry.
	Attempt int
	// Context is "Boot", "MigrationSource" or "MigrationTarget" where KubeVirt says so, else empty.
	Context string
}

// CallFrom is the call that a context belongs to. Of a context that is of no call it is the zero value.
func CallFrom(ctx context.Context) Call {
	if invocation := invocationFrom(ctx); invocation != nil {
		return invocation.Call
	}
	return Call{}
}

// WithCall is a context of a call, for tests of hooks that ask for it.
func WithCall(ctx context.Context, call Call) context.Context {
	return context.WithValue(ctx, invocationKey{}, &invocation{Call: call})
}

type invocationKey struct{}

func invocationFrom(ctx context.Context) *invocation {
	invocation, _ := ctx.Value(invocationKey{}).(*invocation)
	return invocation
}

// An invocation is a call with everything that it takes to run and to answer it.
type invocation struct {
	Call
	id      json.RawMessage // nil where there is no protocol
	hook    registered
	vmi     VMI
	subject []byte
	timeout time.Duration // 0 for none

	// What follows belongs to whoever holds the server's lock.
	cancelled bool
	cancel    context.CancelFunc
}

// run runs the hook. The result is nil if it changes nothing, and what is in the result can be sent.
//
// A goroutine of its own survives a panic, and runtime.Goexit as well.
func (i *invocation) run(ctx context.Context) (result []byte, err error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		err = errors.New("the hook called runtime.Goexit")
		defer func() {
			if cause := recover(); cause != nil {
				err = fmt.Errorf("panic: %v\n\n%s", cause, debug.Stack())
			}
		}()
		// Its own copy: a hook that changes it in place does not make it look unchanged.
		result, err = i.hook.run(context.WithValue(ctx, invocationKey{}, i), i.vmi, bytes.Clone(i.subject))
	}()
	<-ended
	switch {
	case err != nil:
		return nil, err
	case i.hook.subject == nodeName || result == nil || bytes.Equal(result, i.subject):
		return nil, nil
	case !utf8.Valid(result):
		return nil, errors.New("the hook's result is not UTF-8")
	case i.hook.subject == cloudInitData && !isObject(result):
		return nil, errors.New("the hook's cloud-init data are not a JSON object")
	}
	return result, nil
}

// check says whether the documents can be used. What is missing is nil.
func (i *invocation) check() error {
	if !isObject(i.vmi) {
		return InvalidParams("vmi is missing or not an object")
	}
	switch {
	case i.hook.subject == cloudInitData && !isObject(i.subject):
		return InvalidParams("cloudInitData is missing or not an object")
	case i.hook.subject != cloudInitData && i.subject == nil:
		return InvalidParams("%s is missing or not a string", i.hook.subject)
	case !utf8.Valid(i.subject):
		return InvalidParams("%s is not UTF-8", i.hook.subject)
	}
	return nil
}

// isObject says whether bytes are a JSON object.
func isObject(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	return len(text) > 0 && text[0] == '{' && utf8.Valid(text) && json.Valid(text)
}
