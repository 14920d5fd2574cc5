package hook

import (
	"bytes"
	"context"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"sync"
)

// maxLogLine is the length at which the shim truncates log lines.
const maxLogLine = 8 << 10

// A logHandler formats each record as a line, "message key=value", and passes it to write.
//
// A handler of the standard library formats the attributes. Meanwhile a value's LogValue or String
// may log as well, so no lock is held.
type logHandler struct {
	level slog.Leveler
	write func(ctx context.Context, level, line string)
	text  slog.Handler
	attrs *formatted
}

func newLogHandler(level slog.Leveler, write func(ctx context.Context, level, line string)) *logHandler {
	if level == nil {
		level = slog.LevelInfo
	}
	attrs := &formatted{byTicket: make(map[string]string)}
	// The level is checked in Enabled.
	everything := &slog.HandlerOptions{Level: slog.Level(math.MinInt)}
	return &logHandler{level, write, slog.NewTextHandler(attrs, everything), attrs}
}

// formatted receives the lines of the standard library's handler. That has one writer for all
// records, so each record has a number in place of its message, its ticket, to find its line by.
type formatted struct {
	lock     sync.Mutex
	last     uint64
	byTicket map[string]string
}

func (f *formatted) ticket() string {
	f.lock.Lock()
	defer f.lock.Unlock()
	f.last++
	return strconv.FormatUint(f.last, 10)
}

// Write takes one line, `level=INFO msg=TICKET key=value`.
func (f *formatted) Write(line []byte) (int, error) {
	text := strings.TrimSuffix(strings.TrimPrefix(string(line), "level=INFO msg="), "\n")
	ticket, _, _ := strings.Cut(text, " ")
	f.lock.Lock()
	defer f.lock.Unlock()
	f.byTicket[ticket] = text[len(ticket):]
	return len(line), nil
}

// take returns the attributes of a record, with a space before each.
func (f *formatted) take(ticket string) string {
	f.lock.Lock()
	defer f.lock.Unlock()
	attrs := f.byTicket[ticket]
	delete(f.byTicket, ticket)
	return attrs
}

func (h *logHandler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.level.Level()
}

func (h *logHandler) Handle(ctx context.Context, record slog.Record) error {
	ticket := h.attrs.ticket()
	// Without a time the line begins with the level.
	bare := slog.Record{Level: slog.LevelInfo, Message: ticket}
	record.Attrs(func(attr slog.Attr) bool {
		bare.AddAttrs(attr)
		return true
	})
	err := h.text.Handle(ctx, bare)
	attrs := h.attrs.take(ticket)
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
