package hook

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"unicode"

	"sidecar-shim.example/hook/internal/loglines"
)

// maxLogLine is the length at which the shim cuts log lines.
const maxLogLine = 8 << 10

// levelsVariable is "1" in the environment if the shim reads levels on stderr.
const levelsVariable = "SIDECAR_SHIM_STDERR_LEVELS"

// currentTarget is that of LogHandler. Run changes it.
var currentTarget atomic.Pointer[loglines.Target]

var initialLogger, ownLogger = slog.Default(), slog.New(LogHandler())

// Run would be too late for what a program logs before. Where the shim has not started the program,
// as in its tests, the logger stays.
func init() {
	_, persistent := os.LookupEnv(protocolVariable)
	level := slog.LevelInfo
	if persistent && hasStderrLevels() {
		level = slog.LevelDebug // the shim has not said yet which levels it logs
	}
	currentTarget.Store(&loglines.Target{Level: level, Write: stderrLines(os.Stderr)})
	if persistent || hasStderrLevels() {
		slog.SetDefault(ownLogger)
	}
}

// LogHandler returns the handler that writes to the shim's log. [Worker.Run] makes it the default
// one of log/slog, unless the program has set another. Such a program can pass records on to it.
func LogHandler() slog.Handler { return loglines.NewHandler(&currentTarget) }

// startLog makes lines go to a target, and becomes the default logger if the program has no other.
func startLog(target *loglines.Target) {
	currentTarget.Store(target)
	if now := slog.Default(); now == initialLogger || now == ownLogger {
		slog.SetDefault(ownLogger)
	}
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

// levelOf returns the level with a name. Unknown ones count as info.
func levelOf(name string) slog.Level {
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelWarn, slog.LevelError} {
		if levelName(level) == name {
			return level
		}
	}
	return slog.LevelInfo
}

// writeLog sends a line to the shim's log, with the id of the context's call.
func (s *server) writeLog(ctx context.Context, line loglines.Line) {
	text, _ := marshal(loglines.Clip(line.Message, maxLogLine)) // cannot fail for a string
	var message bytes.Buffer
	message.WriteString(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"` + levelName(line.Level) + `","message":`)
	message.Write(text)
	if call := invocationFrom(ctx); call != nil && call.id != nil {
		message.WriteString(`,"id":` + string(call.id))
	}
	for i, field := range line.Fields {
		message.WriteString([]string{`,"fields":{`, ","}[min(i, 1)])
		name, _ := marshal(field.Name)
		value, _ := marshal(field.Value) // cannot fail for the values of fields
		message.Write(bytes.Join([][]byte{name, value}, []byte(":")))
	}
	if len(line.Fields) > 0 {
		message.WriteString("}")
	}
	message.WriteString("}}")
	s.send(message.Bytes(), nil)
}

func hasStderrLevels() bool { return os.Getenv(levelsVariable) == "1" }

// stderrLines returns the function that writes lines to stderr, as "WARNING: message key=value". If
// the shim reads levels, each has a number in place of the word.
func stderrLines(stderr io.Writer) func(ctx context.Context, line loglines.Line) {
	return func(_ context.Context, line loglines.Line) {
		var text strings.Builder
		if !hasStderrLevels() {
			text.WriteString(strings.ToUpper(levelName(line.Level)) + ": ")
		}
		text.WriteString(line.Message)
		for _, field := range line.Fields {
			text.WriteString(" " + quoted(field.Name) + "=" + quoted(fmt.Sprint(field.Value)))
		}
		writeLines(stderr, line.Level, text.String())
	}
}

// writeLines writes a text to stderr, with its level before each line if the shim reads it. It is
// one write, which keeps the lines together.
func writeLines(stderr io.Writer, level slog.Level, text string) {
	text = strings.TrimRight(text, "\n")
	if hasStderrLevels() {
		// Numbers of syslog, as in systemd.
		prefix := map[string]string{"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}[levelName(level)]
		text = prefix + strings.ReplaceAll(text, "\n", "\n"+prefix)
	}
	fmt.Fprintln(stderr, text)
}

// quoted returns a text, in quotes if it would not be one word without.
func quoted(text string) string {
	if text == "" || strings.ContainsFunc(text, func(r rune) bool {
		return r == '"' || r == '=' || unicode.IsSpace(r) || !unicode.IsPrint(r)
	}) {
		return strconv.Quote(text)
	}
	return text
}
