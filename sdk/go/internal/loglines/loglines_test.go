package loglines

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// loggerTo returns a logger that writes to a target.
func loggerTo(target *Target) *slog.Logger {
	var pointer atomic.Pointer[Target]
	pointer.Store(target)
	return slog.New(NewHandler(&pointer))
}

// A chatty value logs while it is logged.
type chatty struct {
	logger *slog.Logger
	ctx    context.Context
}

func (c chatty) LogValue() slog.Value {
	c.logger.InfoContext(c.ctx, "resolved", "by", "LogValue")
	return slog.StringValue("value")
}

func (c chatty) String() string {
	c.logger.InfoContext(c.ctx, "resolved", "by", "String")
	return "text"
}

func TestValuesMayLogWhileTheyAreLogged(t *testing.T) {
	var lines []string
	logger := loggerTo(&Target{slog.LevelInfo, func(_ context.Context, line Line) {
		lines = append(lines, fmt.Sprint(line.Message, line.Fields))
	}})
	ctx := context.Background()
	value := chatty{logger, ctx}
	logger.With("a", value).Info("with", "b", 1)
	logger.Info("first", "a", value, "b", struct{ fmt.Stringer }{value})
	want := "resolved[{by LogValue}] with[{a value} {b 1}] resolved[{by LogValue}] resolved[{by String}] first[{a value} {b text}]"
	if got := strings.Join(lines, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

type panicking struct{}

func (panicking) MarshalText() ([]byte, error) { panic("secret") }

func TestFieldsAreStringsNumbersAndBooleans(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)
	for want, value := range map[string]any{
		`"text"`: "text", "7": 7, "true": true, "1.5": 1.5, "18446744073709551615": uint64(math.MaxUint64),
		`"NaN"`: math.NaN(), `"1m0s"`: time.Minute, `"2026-01-02T03:04:05.006Z"`: when,
		`"file already exists"`: os.ErrExist, `"bytes"`: []byte("bytes"), `"{A:1}"`: struct{ A int }{1},
		`"!PANIC: string"`: panicking{}, `"` + strings.Repeat("x", maxText) + `"`: strings.Repeat("x", maxText+1),
	} {
		fields := appendFields(nil, "", slog.Any("k", value))
		if got, err := json.Marshal(fields[0].Value); err != nil || string(got) != want {
			t.Errorf("%v is %s, %v, not %s", value, got, err, want)
		}
	}
	var many []Field
	for i := range 2 * MaxFields {
		many = appendFields(many, "", slog.Int(fmt.Sprint("k", i), i))
	}
	shared := many[:2]
	changed := appendFields(shared, "", slog.Int("k1", 9))
	if len(many) != MaxFields || fmt.Sprint(shared) != "[{k0 0} {k1 1}]" || fmt.Sprint(changed) != "[{k0 0} {k1 9}]" {
		t.Errorf("%d fields, %v, %v", len(many), shared, changed)
	}
}

func TestLoggersShareNothing(t *testing.T) {
	var lock sync.Mutex
	found := make(map[string]int)
	base := loggerTo(&Target{slog.LevelInfo, func(_ context.Context, line Line) {
		lock.Lock()
		defer lock.Unlock()
		found[fmt.Sprint(line.Message, line.Fields)]++
	}}).With("base", 1)
	var all sync.WaitGroup
	for n := range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			logger := base.With("n", n)
			for i := range 100 {
				logger.Info("m", "i", i)
			}
		}()
	}
	all.Wait()
	for n := range 8 {
		for i := range 100 {
			if line := fmt.Sprintf("m[{base 1} {n %d} {i %d}]", n, i); found[line] != 1 {
				t.Errorf("%q came %d times", line, found[line])
			}
		}
	}
}
