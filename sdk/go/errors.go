package hook

import (
	"context"
	"errors"
	"fmt"
)

// Codes of errors in the worker protocol.
const (
	CodeRefused       = -32000 // the hook refuses or failed, and gives the reason
	CodeUnknownMethod = -32601
	CodeInvalidParams = -32602 // the documents are invalid
	CodeFault         = -32603 // a bug in the hook
	CodeCancelled     = -32800
)

// An Error is a failure whose text the VM's owner reads. The text must not contain documents or
// secrets. [Refuse], [Retry] and [InvalidParams] create one; errors that wrap one count as well.
type Error struct {
	Code      int
	Retryable bool // another worker may succeed
	Err       error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the error without its code.
func (e *Error) Unwrap() error { return e.Err }

// Refuse returns the error of a hook that refuses this VM. The text is formatted as by fmt.Errorf.
// The VM's owner reads it: say what is wrong and what to do.
func Refuse(format string, args ...any) error {
	return &Error{Code: CodeRefused, Err: fmt.Errorf(format, args...)}
}

// Retry is like Refuse, for a failure that another worker may not have. The shim retries the call
// once; the second error is final.
func Retry(format string, args ...any) error {
	return &Error{Code: CodeRefused, Retryable: true, Err: fmt.Errorf(format, args...)}
}

// InvalidParams returns the error of a hook whose documents are invalid. The text is formatted as
// by fmt.Errorf.
func InvalidParams(format string, args ...any) error {
	return &Error{Code: CodeInvalidParams, Err: fmt.Errorf(format, args...)}
}

var (
	errCancelled     = &Error{Code: CodeCancelled, Err: errors.New("the call was cancelled")}
	errFault         = &Error{Code: CodeFault, Err: errors.New("a fault in the hook's code; its log has the trace")}
	errDeadline      = &Error{Code: CodeRefused, Err: errors.New("the hook did not finish before its deadline")}
	errTooLarge      = &Error{Code: CodeRefused, Err: errors.New("the result does not fit a frame")}
	errNoParams      = &Error{Code: CodeInvalidParams, Err: errors.New("params is missing or not an object")}
	errUnknownMethod = &Error{Code: CodeUnknownMethod, Err: errors.New("unknown method")}
	errNoVersion     = &Error{Code: CodeInvalidParams, Err: errors.New("no common protocol version")}
)

// callerError returns the error that the caller gets, and whether it is complete. If it is not, the
// original error must be logged.
func callerError(ctx context.Context, err error) (*Error, bool) {
	var known *Error
	switch {
	case errors.As(err, &known):
		// Includes the text of errors that wrap it.
		return &Error{known.Code, known.Retryable, err}, true
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		return errDeadline, false
	}
	return errFault, false
}
