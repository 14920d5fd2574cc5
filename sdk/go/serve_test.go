package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestACallEndsAtItsDeadline(t *testing.T) {
	var worker Worker
	left := make(chan time.Duration, 1)
	worker.OnDefineDomain(func(ctx context.Context, _ VMI, _ []byte) ([]byte, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		<-ctx.Done()
		return nil, fmt.Errorf("asking the license server: %w", ctx.Err())
	})
	shim := start(t, &worker)
	shim.define(2, "{}", `{"deadlineMs":30,"attempt":1}`, "<domain/>")
	shim.expectError(2, errDeadline)
	if left := <-left; left <= 0 || left > 30*time.Millisecond {
		t.Errorf("%v until the deadline", left)
	}
	shim.end()
	if log := shim.log.String(); !strings.Contains(log, "onDefineDomain: asking the license server: context deadline exceeded") {
		t.Errorf("the log is without the reason: %q", log)
	}
}

func TestADeadlineThatIsFarAwayIsOne(t *testing.T) {
	var worker Worker
	worker.NodeHook("preVMStart", func(ctx context.Context, _ VMI, _ string) error {
		if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) < 290*365*24*time.Hour {
			t.Errorf("the deadline is %v, %t", deadline, ok)
		}
		return ctx.Err()
	})
	shim := start(t, &worker)
	shim.send(`{"jsonrpc":"2.0","id":2,"method":"preVMStart","params":{"vmi":{},"nodeName":"a","invocation":{"deadlineMs":9007199254740991}}}`)
	shim.expect(`{"jsonrpc":"2.0","id":2,"result":{}}`)
	shim.end()
}

func TestAsManyCallsRunAtOnceAsDeclared(t *testing.T) {
	const calls = 3
	worker := Worker{Concurrency: calls}
	running := make(chan string)
	worker.OnDefineDomain(func(ctx context.Context, _ VMI, domain []byte) ([]byte, error) {
		running <- string(domain)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	shim := start(t, &worker)
	for id := 2; id < 2+calls+1; id++ { // one more than the concurrency
		go shim.define(id, "{}", "{}", fmt.Sprint(id))
		if id < 2+calls {
			if domain := <-running; domain != fmt.Sprint(id) {
				t.Fatalf("%s runs, not %d", domain, id)
			}
		}
	}
	select {
	case domain := <-running:
		t.Fatalf("%s runs as well", domain)
	case <-time.After(10 * time.Millisecond): // too short a wait cannot make the test fail
	}
	// A cancelled call makes room for the next one.
	shim.server.cancel([]byte(`{"id":3}`))
	shim.expectError(3, errCancelled)
	if domain := <-running; domain != "5" {
		t.Errorf("%s runs, not 5", domain)
	}
	for _, id := range []int{5, 2, 4} {
		shim.send(fmt.Sprintf(`{"jsonrpc":"2.0","method":"$/cancelRequest","params":{"id":%d}}`, id))
		shim.expectError(id, errCancelled)
	}
	shim.end()
}

func TestAnswersDoNotMix(t *testing.T) {
	const calls, size = 16, stepSize + 1 // too long for one write
	worker := Worker{Concurrency: calls}
	var all sync.WaitGroup
	all.Add(calls)
	worker.OnDefineDomain(func(_ context.Context, _ VMI, domain []byte) ([]byte, error) {
		all.Done()
		all.Wait() // so that all of them write at the same time
		return bytes.Repeat(domain, size), nil
	})
	shim := start(t, &worker)
	domains := make(map[string]string)
	for i := range calls {
		domain := string(rune('a' + i))
		shim.define(2+i, "{}", "{}", domain)
		domains[fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":{},"attachments":["domain"]}`, 2+i)] = domain
	}
	for range calls {
		message, attached := shim.receive()
		domain := domains[message]
		if domain == "" || attached != strings.Repeat(domain, size) {
			t.Errorf("%s: %.20q… is not %q", message, attached, domain)
		}
		delete(domains, message)
	}
	shim.end()
}

func TestAWorkerSurvivesEveryFaultOfAHook(t *testing.T) {
	var worker Worker
	behaviours := map[string]func() ([]byte, error){
		"panic":   func() ([]byte, error) { var m map[string]int; m["a"] = 1; return nil, nil },
		"goexit":  func() ([]byte, error) { runtime.Goexit(); return nil, nil },
		"error":   func() ([]byte, error) { return nil, errors.New("a plain error") },
		"bytes":   func() ([]byte, error) { return []byte("\xff"), nil },
		"result":  func() ([]byte, error) { return []byte("result"), errors.New("an error beside a result") },
		"timeout": func() ([]byte, error) { return nil, context.DeadlineExceeded }, // not the call's own
		"nothing": func() ([]byte, error) { return nil, nil },
	}
	worker.OnDefineDomain(func(_ context.Context, _ VMI, domain []byte) ([]byte, error) {
		return behaviours[string(domain)]()
	})
	worker.PreCloudInitIso(func(_ context.Context, _ VMI, _ CloudInitData) (CloudInitData, error) {
		return CloudInitData(`["no object"]`), nil
	})
	shim := start(t, &worker)
	for id, behaviour := range []string{2: "panic", 3: "goexit", 4: "error", 5: "bytes", 6: "result", 9: "timeout"} {
		if behaviour != "" {
			shim.define(id, "{}", "{}", behaviour)
			shim.expectError(id, errFault)
		}
	}
	shim.send(`{"jsonrpc":"2.0","id":7,"method":"preCloudInitIso","params":{"vmi":{},"cloudInitData":{}}}`)
	shim.expectError(7, errFault)
	shim.define(8, "{}", "{}", "nothing")
	shim.expect(`{"jsonrpc":"2.0","id":8,"result":{"unchanged":true}}`)
	shim.end()
	for _, want := range []string{
		"onDefineDomain: panic: assignment to entry in nil map\n\ngoroutine ",
		"serve_test.go:", // from the stack trace
		"the hook called runtime.Goexit\n",
		"onDefineDomain: a plain error\n",
		"onDefineDomain: the hook's result is not UTF-8\n",
		"onDefineDomain: an error beside a result\n",
		"preCloudInitIso: the hook's cloud-init data is not a JSON object\n",
	} {
		if !strings.Contains(shim.log.String(), want) {
			t.Errorf("the log is without %q:\n%s", want, shim.log.String())
		}
	}
}

func TestARefusalMayBeWrapped(t *testing.T) {
	var worker Worker
	worker.OnDefineDomain(func(context.Context, VMI, []byte) ([]byte, error) {
		return nil, fmt.Errorf("disk vda: %w", Retry("the pool %s is full: %w", "ssd", os.ErrPermission))
	})
	shim := start(t, &worker)
	shim.define(2, "{}", "{}", "<domain/>")
	shim.expect(`{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"disk vda: the pool ssd is full: permission denied","data":{"retryable":true}}}`)
	shim.end()
	if log := shim.log.String(); log != "" {
		t.Errorf("an error for the owner is in the log too: %q", log)
	}
}

func TestAHookMayChangeItsDocumentInPlace(t *testing.T) {
	var worker Worker
	worker.OnDefineDomain(func(_ context.Context, _ VMI, domain []byte) ([]byte, error) {
		copy(domain, "<DOMAIN/>")
		return domain, nil
	})
	shim := start(t, &worker)
	shim.define(2, "{}", "{}", "<domain/>")
	if _, domain := shim.receive(); domain != "<DOMAIN/>" {
		t.Errorf("it is %q", domain)
	}
	shim.end()
}

func TestMembersHaveTheirCase(t *testing.T) {
	var worker Worker
	worker.OnDefineDomain(func(ctx context.Context, _ VMI, domain []byte) ([]byte, error) {
		return append(domain, CallFrom(ctx).Context...), nil
	})
	shim := start(t, &worker)
	shim.send(`{"jsonrpc":"2.0","id":2,"ID":3,"method":"onDefineDomain","METHOD":"x","params":{"vmi":{},"domain":"<a/>","Domain":"<b/>",` +
		`"invocation":{"context":"Boot","Context":"x"}},"Params":{}}`)
	if _, domain := shim.receive(); domain != "<a/>Boot" {
		t.Errorf("it is %q", domain)
	}
	shim.end()
}

func TestAMessageWithUnusableAttachmentsEndsTheWorker(t *testing.T) {
	for _, attachments := range []string{`"domain"`, `[1]`, `{}`} {
		message := `{"jsonrpc":"2.0","method":"$/later","attachments":` + attachments + `}`
		var input bytes.Buffer
		if err := writeFrames(&input, []byte(message), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := readMessage(&input); err == nil || !strings.Contains(err.Error(), "attachments") {
			t.Errorf("%s: %v", attachments, err)
		}
	}
}

func TestAWorkerExitsWhenItsOutputIsClosed(t *testing.T) {
	worker := asWorker(program(t, "vectors", "1"))
	stdin, stdout, stderr := startPiped(t, worker)
	stdout.Close()
	// Its input stays open: it must exit because of the failure.
	if err := writeFrames(stdin, []byte(`{"jsonrpc":"2.0","id":1,"method":"later"}`), nil); err != nil {
		t.Fatal(err)
	}
	if err := worker.Wait(); worker.ProcessState.ExitCode() != 1 {
		t.Error(err)
	}
	if text := stderr.String(); !strings.HasPrefix(text, "vectors: cannot write to stdout: ") {
		t.Errorf("stderr is %q", text)
	}
}

func TestMemoryIsLinear(t *testing.T) {
	var worker Worker
	worker.OnDefineDomain(func(_ context.Context, _ VMI, domain []byte) ([]byte, error) {
		domain[0]++
		return domain, nil
	})
	// Returns the bytes allocated for a call with a domain of this size, attached or not.
	allocated := func(size int, attachments bool) uint64 {
		input, toWorker := io.Pipe()
		fromWorker, output := io.Pipe()
		ended := make(chan error, 1)
		server := newServer(&worker, output, io.Discard)
		server.attach = attachments
		go func() { ended <- server.serve(input) }()
		domain := bytes.Repeat([]byte("x"), size)
		message := []byte(`{"jsonrpc":"2.0","id":1,"method":"onDefineDomain","params":{"vmi":{}},"attachments":["domain"]}`)
		if !attachments {
			message = slices.Concat([]byte(`{"jsonrpc":"2.0","id":1,"method":"onDefineDomain","params":{"vmi":{},"domain":"`), domain, []byte(`"}}`))
			domain = nil
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := writeFrames(toWorker, message, domain); err != nil {
			t.Fatal(err)
		}
		toWorker.Close()
		go func() { output.CloseWithError(<-ended) }()
		if answered, err := io.Copy(io.Discard, fromWorker); err != nil || answered < int64(size) {
			t.Fatalf("%d bytes, %v", answered, err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	for _, attachments := range []bool{true, false} {
		one, four := allocated(1<<20, attachments), allocated(4<<20, attachments)
		if limit := map[bool]uint64{true: 3, false: 24}[attachments] << 20; one > limit {
			t.Errorf("attachments %t: %d bytes for 1 MiB", attachments, one)
		}
		if four > one*9/2 {
			t.Errorf("attachments %t: %d bytes for 4 MiB, %d for 1 MiB", attachments, four, one)
		}
	}
}

func TestLogLinesHaveLevelAttributesAndCall(t *testing.T) {
	var shim *shim
	var worker Worker
	worker.NodeHook("preVMStart", func(ctx context.Context, _ VMI, _ string) error {
		handler := newLogHandler(nil, shim.server.writeLog)
		logger := slog.New(handler).With("vm", "a b").WithGroup("disk")
		logger.DebugContext(ctx, "below the level")
		logger.WarnContext(ctx, "full <90%>", "name", "vda", slog.Group("size", "GiB", 7))
		slog.New(handler).InfoContext(WithCall(context.Background(), Call{}), "of no call")
		logger.ErrorContext(ctx, strings.Repeat("é", maxLogLine))
		return nil
	})
	shim = start(t, &worker)
	shim.send(`{"jsonrpc":"2.0","id":7,"method":"preVMStart","params":{"vmi":{},"nodeName":"a"}}`)
	shim.expect(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"warning","message":"full <90%> vm=\"a b\" disk.name=vda disk.size.GiB=7","id":7}}`)
	shim.expect(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"info","message":"of no call"}}`)
	shim.expect(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"error","message":"` + strings.Repeat("é", maxLogLine/2) + `","id":7}}`)
	shim.expect(`{"jsonrpc":"2.0","id":7,"result":{}}`)
	shim.end()
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
	var shim *shim
	var worker Worker
	worker.NodeHook("preVMStart", func(ctx context.Context, _ VMI, _ string) error {
		logger := slog.New(newLogHandler(nil, shim.server.writeLog))
		value := chatty{logger, ctx}
		stringer := struct{ fmt.Stringer }{value}
		logger.With("a", value).InfoContext(ctx, "with", "b", 1)
		logger.InfoContext(ctx, "first", "a", value, "b", stringer)
		return nil
	})
	shim = start(t, &worker)
	shim.send(`{"jsonrpc":"2.0","id":7,"method":"preVMStart","params":{"vmi":{},"nodeName":"a"}}`)
	for _, line := range []string{
		"resolved by=LogValue", "with a=value b=1",
		"resolved by=LogValue", "resolved by=String", "first a=value b=text",
	} {
		shim.expect(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"info","message":"` + line + `","id":7}}`)
	}
	shim.expect(`{"jsonrpc":"2.0","id":7,"result":{}}`)
	shim.end()
}

func TestLinesThatAreFormattedAtTheSameTimeStayApart(t *testing.T) {
	var lock sync.Mutex
	found := make(map[string]int)
	handler := newLogHandler(nil, func(_ context.Context, _, line string) {
		lock.Lock()
		defer lock.Unlock()
		found[line]++
	})
	var all sync.WaitGroup
	for n := range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			logger := slog.New(handler).With("n", n)
			for i := range 100 {
				logger.Info(fmt.Sprint("m", n, i), "i", i)
			}
		}()
	}
	all.Wait()
	for n := range 8 {
		for i := range 100 {
			if line := fmt.Sprintf("%s n=%d i=%d", fmt.Sprint("m", n, i), n, i); found[line] != 1 {
				t.Errorf("%q came %d times", line, found[line])
			}
		}
	}
}
