// Package loglines turns records of log/slog into lines with fields.
package loglines

import (
	"context"
	"encoding"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
)

const (
	// MaxFields is the number of a line's fields that the shim logs.
	MaxFields = 32
	// maxName and maxText are the lengths at which the shim cuts fields.
	maxName, maxText = 64, 1 << 10
)

// A Line is one for the shim's log.
type Line struct {
	Level   slog.Level
	Message string
	Fields  []Field
}

// A Field is a name and a string, a number or a bool.
type Field struct {
	Name  string
	Value any
}

// A Target is where lines go, from a level on.
type Target struct {
	Level slog.Leveler
	Write func(ctx context.Context, line Line)
}

// NewHandler returns a handler that writes to the target at that time.
func NewHandler(target *atomic.Pointer[Target]) slog.Handler { return &handler{target: target} }

// A handler writes records to a target.
type handler struct {
	target *atomic.Pointer[Target]
	fields []Field
	group  string // before the names of fields, with a dot
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool {
	return level >= h.target.Load().Level.Level()
}

func (h *handler) Handle(ctx context.Context, record slog.Record) error {
	fields := h.fields[:len(h.fields):len(h.fields)]
	record.Attrs(func(attr slog.Attr) bool {
		fields = appendFields(fields, h.group, attr)
		return true
	})
	h.target.Load().Write(ctx, Line{record.Level, record.Message, fields})
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.fields = with.fields[:len(with.fields):len(with.fields)]
	for _, attr := range attrs {
		with.fields = appendFields(with.fields, h.group, attr)
	}
	return &with
}

func (h *handler) WithGroup(name string) slog.Handler {
	with := *h
	if name != "" {
		with.group += name + "."
	}
	return &with
}

// appendFields adds an attribute, or those of a group. A name that is there gets the later value.
func appendFields(fields []Field, group string, attr slog.Attr) []Field {
	value := attr.Value.Resolve()
	if value.Kind() == slog.KindGroup {
		if attr.Key != "" {
			group += attr.Key + "."
		}
		for _, inner := range value.Group() {
			fields = appendFields(fields, group, inner)
		}
		return fields
	}
	if attr.Equal(slog.Attr{}) {
		return fields
	}
	added := Field{Clip(group+attr.Key, maxName), fieldValue(value)}
	for i := range fields {
		if fields[i].Name == added.Name {
			// The slice may be a logger's.
			changed := append([]Field{}, fields...)
			changed[i] = added
			return changed
		}
	}
	if len(fields) == MaxFields {
		return fields
	}
	return append(fields, added)
}

// fieldValue returns a value as a string, a number or a bool.
func fieldValue(value slog.Value) any {
	switch value.Kind() {
	case slog.KindBool, slog.KindInt64, slog.KindUint64:
		return value.Any()
	case slog.KindFloat64:
		if number := value.Float64(); !math.IsNaN(number) && !math.IsInf(number, 0) {
			return number
		}
	case slog.KindTime:
		return value.Time().Format("2006-01-02T15:04:05.000Z07:00")
	case slog.KindAny:
		return Clip(textOf(value.Any()), maxText)
	}
	return Clip(value.String(), maxText)
}

// textOf formats a value as slog's own handlers do. A method of it that panics must not stop the
// hook.
func textOf(value any) (text string) {
	defer func() {
		if cause := recover(); cause != nil {
			text = fmt.Sprintf("!PANIC: %T", cause)
		}
	}()
	switch value := value.(type) {
	case encoding.TextMarshaler:
		if marshaled, err := value.MarshalText(); err == nil {
			return string(marshaled)
		}
	case []byte:
		return string(value)
	}
	return fmt.Sprintf("%+v", value)
}

// Clip cuts a text to a number of bytes.
func Clip(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.ToValidUTF8(text, "")
}
