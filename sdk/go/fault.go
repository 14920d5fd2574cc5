package hook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"

	"sidecar-shim.example/hook/internal/loglines"
	"sidecar-shim.example/hook/internal/words"
)

const (
	// maxChain is the number of wrapped errors whose types are logged.
	maxChain = 16
	// maxFrames is the number of a panic's functions that are logged. In exec mode, the VM's owner
	// sees the last lines, which should begin with the fault itself.
	maxFrames = 12
)

// A panicError is a panic of a hook.
type panicError struct {
	cause any
	stack string
}

// newPanicError returns the error of a panic, in a deferred function.
func newPanicError(cause any) error { return &panicError{cause, stackOfPanic()} }

func (p *panicError) Error() string { return fmt.Sprintf("panic: %v", p.cause) }

// stackOfPanic returns a line for each function from the one that has panicked to the hook.
func stackOfPanic() string {
	counters := make([]uintptr, 64)
	frames := runtime.CallersFrames(counters[:runtime.Callers(0, counters)])
	var lines []string
	hasPanicked := false // what comes before is the deferred function
	for more := true; more && len(lines) < maxFrames; {
		var frame runtime.Frame
		frame, more = frames.Next()
		switch {
		case strings.HasPrefix(frame.Function, "runtime."):
			hasPanicked = hasPanicked || frame.Function == "runtime.gopanic"
			continue
		case !hasPanicked:
			continue
		case strings.Contains(frame.Function, ".(*invocation).run."):
			return strings.Join(lines, "\n")
		}
		lines = append(lines, fmt.Sprintf("  at %s (%s:%d)", frame.Function, frame.File, frame.Line))
	}
	return strings.Join(lines, "\n")
}

// logFault logs an error that is kept from the VM's owner, or that has parts which are: its type
// and where it was, but not its text, which may quote a document. That is for the hook's author, at
// level debug.
func logFault(ctx context.Context, target *loglines.Target, shown *failure, err error) {
	level := slog.LevelError
	if shown.code != codeFault && shown != errDeadline {
		level = slog.LevelInfo
	}
	if target.Level.Level() <= level {
		target.Write(ctx, loglines.Line{Level: level, Message: describe(err)})
	}
	if target.Level.Level() <= slog.LevelDebug {
		text := fmt.Sprintf("the text of the error, which may quote documents: %v", err)
		target.Write(ctx, loglines.Line{Level: slog.LevelDebug, Message: text})
	}
}

// describe describes an error without its text.
func describe(err error) (description string) {
	defer func() {
		if recover() != nil {
			description = fmt.Sprintf("a fault in the hook: an error of type %T, whose methods panic", err)
		}
	}()
	if fault, ok := err.(*hookFault); ok {
		return fault.Error()
	}
	kind := "a fault in the hook"
	var panicked *panicError
	if errors.As(err, &panicked) {
		cause, _ := panicked.cause.(error)
		return fmt.Sprintf("%s: a panic with a value of type %T%s\n%s", kind, panicked.cause, why(cause), panicked.stack)
	}
	if fault, ok := err.(*words.Error); ok {
		return kind + why(fault)
	}
	var known *failure
	switch {
	case errors.As(err, &known):
		kind = "the hook refuses with other errors"
	case errors.Is(err, context.DeadlineExceeded):
		kind = "the deadline is over"
	}
	return kind + ": an error of type " + strings.Join(types(err, nil), ", which wraps ") + why(err)
}

// why returns the words of an error that quote nothing, after a colon.
func why(err error) string {
	if harmless := words.Of(err); harmless != "" {
		return ": " + string(harmless)
	}
	return ""
}

// types returns the types of an error and of those that it wraps.
func types(err error, found []string) []string {
	if err == nil || len(found) == maxChain {
		return found
	}
	found = append(found, fmt.Sprintf("%T", err))
	switch wrapper := err.(type) {
	case interface{ Unwrap() error }:
		return types(wrapper.Unwrap(), found)
	case interface{ Unwrap() []error }:
		for _, wrapped := range wrapper.Unwrap() {
			found = types(wrapped, found)
		}
	}
	return found
}

// A hookFault is a fault that this package has found, and whose text quotes nothing.
type hookFault struct{ text string }

func (f *hookFault) Error() string { return f.text }
