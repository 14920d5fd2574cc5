package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sidecar-shim.example/hook/internal/words"
)

func TestACallEndsAtItsDeadline(t *testing.T) {
	var worker Worker
	left := make(chan time.Duration, 1)
	worker.OnDefineDomain(func(ctx context.Context, _ VMI, _ []byte) ([]byte, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		<-ctx.Done()
		return nil, fmt.Errorf("secret: %w", ctx.Err())
	})
	shim := start(t, &worker)
	shim.define(2, "{}", `{"deadlineMs":30,"attempt":1}`, "<domain/>")
	shim.expectFault(2, "the deadline is over: an error of type *fmt.wrapError, which wraps context.deadlineExceededError", errDeadline)
	if left := <-left; left <= 0 || left > 30*time.Millisecond {
		t.Errorf("%v until the deadline", left)
	}
	shim.end()
}

func TestADeadlineThatIsFarAwayIsOne(t *testing.T) {
	var worker Worker
	worker.OnNode("preVMStart", func(ctx context.Context, _ VMI, _ string) error {
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
	behaviors := map[string]struct {
		do   func() ([]byte, error)
		line string
	}{
		"panic": {func() ([]byte, error) { var m map[string]int; m["a"] = 1; return nil, nil },
			"a fault in the hook: a panic with a value of type runtime.plainError"},
		"stack":   {func() ([]byte, error) { panic("secret") }, "of type string\n  at sidecar-shim.example/hook.TestAWorkerSurvivesEveryFaultOfAHook."},
		"goexit":  {func() ([]byte, error) { runtime.Goexit(); return nil, nil }, "the hook called runtime.Goexit"},
		"error":   {func() ([]byte, error) { return nil, errors.New("secret") }, "an error of type *errors.errorString"},
		"bytes":   {func() ([]byte, error) { return []byte("secret\xff"), nil }, "the hook's result is not UTF-8"},
		"result":  {func() ([]byte, error) { return []byte("result"), errors.New("secret") }, "an error of type"},
		"words":   {func() ([]byte, error) { return nil, words.WithPlace("secret", "why") }, "a fault in the hook: why"},
		"wrapped": {func() ([]byte, error) { return nil, fmt.Errorf("secret: %w", words.New("why")) }, "*fmt.wrapError, which wraps *words.Error: why"},
		"mistake": {func() ([]byte, error) { panic(words.WithPlace("secret", "why")) }, "a panic with a value of type *words.Error: why\n  at "},
		"joined":  {func() ([]byte, error) { return nil, errors.Join(os.ErrExist, &os.PathError{Err: os.ErrExist}) }, "*errors.joinError, which wraps *errors.errorString, which wraps *fs.PathError"},
		"nil":     {func() ([]byte, error) { var err *wrapsByPointer; return nil, err }, "an error of type *hook.wrapsByPointer, whose methods panic"},
		"timeout": {func() ([]byte, error) { return nil, context.DeadlineExceeded }, "context.deadlineExceededError"}, // not the call's own
	}
	worker.OnDefineDomain(func(_ context.Context, _ VMI, domain []byte) ([]byte, error) {
		if string(domain) == "nothing" {
			return nil, nil
		}
		return behaviors[string(domain)].do()
	})
	worker.PreCloudInitISO(func(_ context.Context, _ VMI, _ CloudInitData) (CloudInitData, error) {
		return CloudInitData(`["secret"]`), nil
	})
	shim := start(t, &worker)
	id := 2
	for name, behavior := range behaviors {
		shim.define(id, "{}", "{}", name)
		shim.expectFault(id, behavior.line, errFault)
		id++
	}
	shim.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"preCloudInitIso","params":{"vmi":{},"cloudInitData":{}}}`, id))
	shim.expectFault(id, "the hook's cloud-init data is not a JSON object", errFault)
	shim.define(id+1, "{}", "{}", "nothing")
	shim.expect(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"result":{"unchanged":true}}`, id+1))
	shim.end()
}

func TestARefusalMayBeWrapped(t *testing.T) {
	var worker Worker
	worker.OnDefineDomain(func(context.Context, VMI, []byte) ([]byte, error) {
		return nil, fmt.Errorf("disk vda: %w", Retryf("the pool %s is full: %w", "ssd", os.ErrPermission))
	})
	shim := start(t, &worker)
	shim.define(2, "{}", "{}", "<domain/>")
	shim.expect(`{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"disk vda: the pool ssd is full: permission denied","data":{"retryable":true}}}`)
	shim.end()
}

func TestOfJoinedErrorsTheOwnerReadsTheRefusal(t *testing.T) {
	var worker Worker
	worker.OnDefineDomain(func(context.Context, VMI, []byte) ([]byte, error) {
		return nil, errors.Join(&os.PathError{Op: "open", Path: "secret", Err: os.ErrNotExist}, Retryf("no"))
	})
	shim := start(t, &worker)
	shim.define(2, "{}", "{}", "<domain/>")
	shim.expect(`{"jsonrpc":"2.0","method":"$/log","params":{"level":"info","message":"the hook refuses with other errors: an error of type ` +
		`*errors.joinError, which wraps *fs.PathError, which wraps *errors.errorString, which wraps *hook.failure, which wraps *errors.errorString","id":2}}`)
	shim.expect(`{"jsonrpc":"2.0","id":2,"error":{"code":-32000,"message":"no","data":{"retryable":true}}}`)
	shim.end()
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
		server := newServer(&worker, output)
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

// wrapsByPointer is an error whose methods panic for a nil pointer.
type wrapsByPointer struct{ err error }

func (w *wrapsByPointer) Error() string { return w.err.Error() }
func (w *wrapsByPointer) Unwrap() error { return w.err }
