package hook

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// Codes of errors in the worker protocol.
const (
	codeRefused       = -32000 // the hook refuses or failed, and gives the reason
	codeUnknownMethod = -32601
	codeInvalidParams = -32602 // the documents are invalid
	codeFault         = -32603 // a bug in the hook
	codeCancelled     = -32800
)

// What kind of error a hook has returned, for errors.Is in its tests.
var (
	ErrRefused       = errors.New("the hook refuses")           // of Refusef and Retryf
	ErrRetryable     = errors.New("another worker may succeed") // of Retryf
	ErrInvalidParams = errors.New("the documents are invalid")  // of InvalidParamsf
)

// A failure is an error whose text the VM's owner reads.
type failure struct {
	code      int
	retryable bool
	err       error
}

func (f *failure) Error() string { return f.err.Error() }

// Unwrap returns the error without its code.
func (f *failure) Unwrap() error { return f.err }

// Is reports whether the failure is of a kind.
func (f *failure) Is(kind error) bool {
	switch kind {
	case ErrRefused:
		return f.code == codeRefused
	case ErrRetryable:
		return f.retryable
	case ErrInvalidParams:
		return f.code == codeInvalidParams
	}
	return false
}

// Refusef returns the error of a hook that refuses this VM. The text is formatted as by fmt.Errorf.
// The VM's owner reads it, so say what is wrong and what to do, and keep documents and secrets out.
// An error that wraps it counts as well: the owner reads the text of the outer one. Of several
// errors that are wrapped together, as by errors.Join, the owner reads only those that are made by
// this function and the next two.
func Refusef(format string, args ...any) error {
	return &failure{code: codeRefused, err: fmt.Errorf(format, args...)}
}

// Retryf is like Refusef, for a failure that another worker may not have. The shim retries the call
// once; the second error is final.
func Retryf(format string, args ...any) error {
	return &failure{code: codeRefused, retryable: true, err: fmt.Errorf(format, args...)}
}

// InvalidParamsf returns the error of a hook whose documents are invalid. The text is formatted as
// by fmt.Errorf. The VM's owner reads it, as that of Refusef.
func InvalidParamsf(format string, args ...any) error {
	return &failure{code: codeInvalidParams, err: fmt.Errorf(format, args...)}
}

var (
	errCancelled     = &failure{code: codeCancelled, err: errors.New("the call was cancelled")}
	errFault         = &failure{code: codeFault, err: errors.New("a fault in the hook's code; its log has the trace")}
	errDeadline      = &failure{code: codeRefused, err: errors.New("the hook did not finish before its deadline")}
	errTooLarge      = &failure{code: codeRefused, err: errors.New("the result does not fit a frame")}
	errNoParams      = &failure{code: codeInvalidParams, err: errors.New("params is missing or not an object")}
	errUnknownMethod = &failure{code: codeUnknownMethod, err: errors.New("unknown method")}
	errNoVersion     = &failure{code: codeInvalidParams, err: errors.New("no common protocol version")}
)

// callerError returns the error that the caller gets, and whether it is complete. If it is not, the
// original error must be logged.
func callerError(ctx context.Context, err error) (shown *failure, complete bool) {
	// Methods of the hook's own error may panic, those of a typed nil pointer for example.
	defer func() {
		if recover() != nil {
			shown, complete = errFault, false
		}
	}()
	var known *failure
	switch {
	case errors.As(err, &known):
		texts, complete := ownersTexts(err)
		if len(texts) == 0 { // the error has a method As
			texts = []string{known.Error()}
		}
		text := strings.Join(texts, "\n")
		if text == "" {
			text = "the hook refuses, and gives no reason"
		}
		return &failure{known.code, known.retryable, errors.New(text)}, complete
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		return errDeadline, false
	}
	return errFault, false
}

// ownersTexts returns the texts of the failures in an error, each with the texts of the errors that
// wrap it alone, and whether there are only failures.
func ownersTexts(err error) (texts []string, complete bool) {
	for inner := err; inner != nil; {
		if _, ok := inner.(*failure); ok {
			return []string{err.Error()}, true
		}
		switch wrapper := inner.(type) {
		case interface{ Unwrap() error }:
			inner = wrapper.Unwrap()
		case interface{ Unwrap() []error }:
			complete = true
			for _, wrapped := range wrapper.Unwrap() {
				if wrapped != nil {
					found, only := ownersTexts(wrapped)
					texts, complete = append(texts, found...), complete && only
				}
			}
			return texts, complete
		default:
			return nil, false
		}
	}
	return nil, false
}
