package hook

import (
	"context"
	"errors"
	"fmt"
)

// Codes of errors in the worker protocol.
const (
	CodeRefused       = -32000 // the hook refuses or failed, and says why
	CodeUnknownMethod = -32601
	CodeInvalidParams = -32602 // the documents cannot be used
	CodeFault         = -32603 // a fault in the hook's code
	CodeCancelled     = -32800
)

// An Error is a failure that the owner of the VM is told about. Its text is not to hold a document or a
// secret. [Refuse], [Retry] and [InvalidParams] make one; errors.As finds it in an error that wraps it.
type Error struct {
	Code      int
	Retryable bool // another worker may succeed where this one could not
	Err       error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap is the error without its code.
func (e *Error) Unwrap() error { return e.Err }

// Refuse is the error of a hook that does not want this VM as it is. The text is formatted as by
// fmt.Errorf. It reaches the owner of the VM: it says what is wrong and what to do.
func Refuse(format string, args ...any) error {
	return &Error{Code: CodeRefused, Err: fmt.Errorf(format, args...)}
}

// Retry is like Refuse, for a failure that another worker may not have. The shim calls once more, and
// the second error is final.
func Retry(format string, args ...any) error {
	return &Error{Code: CodeRefused, Retryable: true, Err: fmt.Errorf(format, args...)}
}

// InvalidParams is the error of a hook that cannot read the documents that it got. The text is
// formatted as by fmt.Errorf.
func InvalidParams(format string, args ...any) error {
	return &Error{Code: CodeInvalidParams, Err: fmt.Errorf(format, args...)}
}

var (
	errCancelled     = &Error{Code: CodeCancelled, Err: errors.New("the call was cancelled")}
	errFault         = &Error{Code: CodeFault, Err: errors.New("a fault in the hook's code; its log has the trace")}
	errDeadline      = &Error{Code: CodeRefused, Err: errors.New("the hook did not end before its deadline")}
	errTooLarge      = &Error{Code: CodeRefused, Err: errors.New("the result does not fit a frame")}
	errNoParams      = &Error{Code: CodeInvalidParams, Err: errors.New("params is missing or not an object")}
	errUnknownMethod = &Error{Code: CodeUnknownMethod, Err: errors.New("unknown method")}
	errNoVersion     = &Error{Code: CodeInvalidParams, Err: errors.New("no common protocol version")}
)

// told is what the caller is told about an error, and whether that is all there is to know: if not,
// the error itself belongs into the log.
func told(ctx context.Context, err error) (*Error, bool) {
	var known *Error
	switch {
	case errors.As(err, &known):
		// The text of an error that wraps it belongs to it.
		return &Error{known.Code, known.Retryable, err}, true
	case errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil:
		return errDeadline, false
	}
	return errFault, false
}
