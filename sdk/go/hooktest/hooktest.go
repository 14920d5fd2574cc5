// Package hooktest has what tests of hooks need.
//
// A hook is a function, and a test calls it. [New] makes the context of a call, with all that a
// hook may decide by, and keeps what the hook logs:
//
//	ctx, log := hooktest.New(t, hooktest.Call{Context: hook.MigrationTarget, Attempt: 2})
//	err := addDisk(ctx, vmi, doc)
//	if !log.Contains(slog.LevelWarn, "cannot be live-migrated") { … }
//
// [Idempotent] calls a hook with its own result, in each form in which KubeVirt may hand that back.
package hooktest

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/internal/loglines"
)

// A Call is a call as a hook sees it. The zero value is the first attempt of a call of
// onDefineDomain without a deadline.
type Call struct {
	Hook      string
	Attempt   int
	Context   string        // hook.Boot, hook.MigrationSource or hook.MigrationTarget
	Remaining time.Duration // until the deadline
	Cancelled bool
}

// New returns the context of a call, which is done at the end of the test, and the log of what the
// hook logs with it.
//
// The hook's lines are those of log/slog's default logger. Without the context, as from slog.Info,
// they are in the log if no other test has one at that time.
func New(t testing.TB, call Call) (context.Context, *Log) {
	t.Helper()
	if call.Hook == "" {
		call.Hook = "onDefineDomain"
	}
	log := &Log{}
	ctx := context.WithValue(context.Background(), logKey{}, log)
	ctx = hook.WithCall(ctx, hook.Call{Hook: call.Hook, Attempt: max(call.Attempt, 1), Context: call.Context})
	var cancel context.CancelFunc
	if call.Remaining > 0 {
		ctx, cancel = context.WithTimeout(ctx, call.Remaining)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	if call.Cancelled {
		cancel()
	}
	logs.start(log)
	t.Cleanup(func() {
		cancel()
		logs.end(log)
	})
	return ctx, log
}

// A Log has the lines that a hook has logged.
type Log struct {
	lock  sync.Mutex
	lines []Line
}

// A Line is a line of the log. Its fields are strings, numbers and bools.
type Line struct {
	Level   slog.Level
	Message string
	Fields  map[string]any
}

// Lines returns the lines, of all levels.
func (l *Log) Lines() []Line {
	l.lock.Lock()
	defer l.lock.Unlock()
	return append([]Line(nil), l.lines...)
}

// Contains reports whether a message of a level has a text.
func (l *Log) Contains(level slog.Level, text string) bool {
	for _, line := range l.Lines() {
		if line.Level == level && strings.Contains(line.Message, text) {
			return true
		}
	}
	return false
}

type logKey struct{}

// logs are those of all running tests.
var logs openLogs

type openLogs struct {
	lock sync.Mutex
	open []*Log
}

func (o *openLogs) start(log *Log) {
	o.lock.Lock()
	defer o.lock.Unlock()
	o.open = append(o.open, log)
	// A program's own default may have been set after the test before.
	if slog.Default() != testLogger {
		slog.SetDefault(testLogger)
	}
}

func (o *openLogs) end(log *Log) {
	o.lock.Lock()
	defer o.lock.Unlock()
	for i := range o.open {
		if o.open[i] == log {
			o.open = append(o.open[:i], o.open[i+1:]...)
			return
		}
	}
}

// of returns the log for a line, or nil.
func (o *openLogs) of(ctx context.Context) *Log {
	if log, ok := ctx.Value(logKey{}).(*Log); ok {
		return log
	}
	o.lock.Lock()
	defer o.lock.Unlock()
	if len(o.open) == 1 {
		return o.open[0]
	}
	return nil
}

// testLogger stays the default one: a test may run at the same time as another.
var testLogger = newTestLogger()

func newTestLogger() *slog.Logger {
	other := slog.NewTextHandler(os.Stderr, nil)
	var target atomic.Pointer[loglines.Target]
	target.Store(&loglines.Target{Level: slog.LevelDebug, Write: func(ctx context.Context, line loglines.Line) {
		fields := make(map[string]any, len(line.Fields))
		for _, field := range line.Fields {
			fields[field.Name] = field.Value
		}
		log := logs.of(ctx)
		if log == nil {
			_ = other.Handle(ctx, slog.NewRecord(time.Now(), line.Level, line.Message, 0))
			return
		}
		log.lock.Lock()
		defer log.lock.Unlock()
		log.lines = append(log.lines, Line{line.Level, line.Message, fields})
	}})
	return slog.New(loglines.NewHandler(&target))
}
