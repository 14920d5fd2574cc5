package hook

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"strings"
	"sync"
)

// maxLogLine is the length at which the shim truncates log lines.
const maxLogLine = 8 << 10

// A logHandler formats each record as a line, "message key=value", and passes it to write.
type logHandler struct {
	level slog.Leveler
	write func(ctx context.Context, level, line string)

	// A handler of the standard library formats the attributes into the buffer.
	lock   *sync.Mutex
	buffer *bytes.Buffer
	text   slog.Handler
}

func newLogHandler(level slog.Leveler, write func(ctx context.Context, level, line string)) *logHandler {
	if level == nil {
		level = slog.LevelInfo
	}
	buffer := new(bytes.Buffer)
	// The level is checked in Enabled.
	everything := &slog.HandlerOptions{Level: slog.Level(math.MinInt)}
	return &logHandler{level, write, new(sync.Mutex), buffer, slog.NewTextHandler(buffer, everything)}
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	// Without a time a line begins with level and message, which are cut off below.
	bare := slog.Record{Level: slog.LevelInfo}
	record.Attrs(func(attr slog.Attr) bool {
		bare.AddAttrs(attr)
		return true
	})
	h.lock.Lock()
	h.buffer.Reset()
	err := h.text.Handle(ctx, bare)
	attrs := strings.TrimSuffix(strings.TrimPrefix(h.buffer.String(), `level=INFO msg=""`), "\n")
	h.lock.Unlock()
	if err != nil {
		return err
	}
	line := record.Message + attrs
	if len(line) > maxLogLine {
		line = strings.ToValidUTF8(line[:maxLogLine], "")
	}
	h.write(ctx, levelName(record.Level), line)
	return nil
}

func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.text = h.text.WithAttrs(attrs)
	return &with
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	with := *h
	with.text = h.text.WithGroup(name)
	return &with
}

// levelName returns the protocol's name for a level.
func levelName(level slog.Level) string {
	switch {
	case level < slog.LevelInfo:
		return "debug"
	case level < slog.LevelWarn:
		return "info"
	case level < slog.LevelError:
		return "warning"
	}
	return "error"
}

// writeLog sends a line to the shim's log, with the id of the context's call.
func (s *server) writeLog(ctx context.Context, level, line string) {
	text, _ := marshal(line) // cannot fail for a string
	var message bytes.Buffer
	message.WriteString(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"` + level + `","message":`)
	message.Write(text)
	if call := invocationFrom(ctx); call != nil && call.id != nil {
		message.WriteString(`,"id":` + string(call.id))
	}
	message.WriteString("}}")
	s.send(message.Bytes(), nil)
}
