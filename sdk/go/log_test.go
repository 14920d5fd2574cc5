package hook

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"sidecar-shim.example/hook/internal/loglines"
)

// loggerTo returns a logger that writes to a target.
func loggerTo(target *loglines.Target) *slog.Logger {
	var pointer atomic.Pointer[loglines.Target]
	pointer.Store(target)
	return slog.New(loglines.NewHandler(&pointer))
}

func TestLogLinesHaveLevelFieldsAndCall(t *testing.T) {
	var shim *shim
	var worker Worker
	worker.OnNode(PreVMStart, func(ctx context.Context, _ VMI, _ string) error {
		plain := loggerTo(shim.server.log)
		logger := plain.With("vm", "a b").WithGroup("disk")
		logger.DebugContext(ctx, "below the level")
		logger.WarnContext(ctx, "full <90%>", "name", "vda", slog.Group("size", "GiB", 7), slog.Group("", "hot", true), slog.Group("none"))
		plain.InfoContext(WithCall(context.Background(), Call{}), "of no call")
		logger.ErrorContext(ctx, strings.Repeat("é", maxLogLine))
		return nil
	})
	shim = start(t, &worker)
	shim.send(`{"jsonrpc":"2.0","id":7,"method":"preVMStart","params":{"vmi":{},"nodeName":"a"}}`)
	shim.expect(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"warning","message":"full <90%>","id":7,` +
		`"fields":{"vm":"a b","disk.name":"vda","disk.size.GiB":7,"disk.hot":true}}}`)
	shim.expect(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"info","message":"of no call"}}`)
	shim.expect(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"error","message":"` + strings.Repeat("é", maxLogLine/2) + `","id":7,"fields":{"vm":"a b"}}}`)
	shim.expect(`{"jsonrpc":"2.0","id":7,"result":{}}`)
	shim.end()
}

func TestLinesOnStderr(t *testing.T) {
	ctx := context.Background()
	line := loglines.Line{Level: slog.LevelWarn, Message: "two\nlines", Fields: []loglines.Field{{Name: "k", Value: "a b"}, {Name: "n", Value: 1}, {Name: "e", Value: ""}}}
	for levels, want := range map[string]string{
		"1": "<4>two\n<4>lines k=\"a b\" n=1 e=\"\"\n",
		"0": "WARNING: two\nlines k=\"a b\" n=1 e=\"\"\n",
	} {
		t.Setenv(levelsVariable, levels)
		var stderr bytes.Buffer
		stderrLines(&stderr)(ctx, line)
		if stderr.String() != want {
			t.Errorf("%q, not %q", stderr.String(), want)
		}
	}
}
