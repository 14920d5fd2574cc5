package hook

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// reportingWorker reports the streams and the environment of a hook's process.
func reportingWorker() *Worker {
	worker := &Worker{Name: "reports"}
	worker.OnDefineDomain(func(ctx context.Context, _ VMI, domain []byte) ([]byte, error) {
		if string(domain) == "log" {
			log.Print("of the package log")
			slog.DebugContext(ctx, "below the level")
			slog.WarnContext(ctx, "of slog", "a", 1)
			return nil, nil
		}
		// The child has this process's standard streams and environment.
		child := exec.Command("sh", "-c", `echo "variable ${KUBEVIRT_HOOK_PROTOCOL-unset}"; cd /proc/$$/fd; readlink 0 1 2 * >&2; cat`)
		child.Stdin, child.Stdout, child.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := child.Run(); err != nil {
			return nil, err
		}
		if rest, err := io.ReadAll(os.Stdin); err != nil || len(rest) > 0 {
			return nil, fmt.Errorf("stdin has %q, %v", rest, err)
		}
		return []byte("reported"), nil
	})
	worker.OnNode("preVMStart", func(_ context.Context, vmi VMI, node string) error {
		if node == "joined" {
			return errors.Join(errors.New("secret"), Refusef("no"))
		}
		if node != "node-a" {
			return Refusef("%s on %s", vmi.Name(), node)
		}
		return nil
	})
	return worker
}

func TestAHookHasNothingOfTheProtocol(t *testing.T) {
	worker := asWorker(program(t, "reports", ""))
	input, toWorker := pipe(t)
	fromWorker, output := pipe(t)
	var stderr bytes.Buffer
	worker.Stdin, worker.Stdout, worker.Stderr = input, output, &stderr
	pipes := []string{target(t, input), target(t, output)}
	call := `{"jsonrpc":"2.0","id":2,"method":"onDefineDomain","params":{"vmi":{},"domain":"<domain/>"}}`
	if err := writeFrames(toWorker, []byte(call), nil); err != nil {
		t.Fatal(err)
	}
	toWorker.Close()
	if err := worker.Run(); err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	frame, err := readFrame(fromWorker)
	if want := `{"jsonrpc":"2.0","id":2,"result":{"domain":"reported"}}`; err != nil || string(frame) != want {
		t.Errorf("%s, %v", frame, err)
	}
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	if len(lines) < 4 || lines[0] != "variable unset" || lines[1] != "/dev/null" || lines[2] != lines[3] {
		t.Fatalf("the child found %q", lines)
	}
	for _, pipe := range pipes {
		if slices.Contains(lines, pipe) {
			t.Errorf("the child has %s of %q: %q", pipe, pipes, lines)
		}
	}
}

// pipe returns a pipe that is closed at the end of the test.
func pipe(t *testing.T) (reader, writer *os.File) {
	t.Helper()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reader.Close(); writer.Close() })
	return reader, writer
}

// target returns the kernel's name of an open file.
func target(t *testing.T, file *os.File) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func TestLogLinesOfAWorker(t *testing.T) {
	worker := asWorker(program(t, "reports", ""))
	var input bytes.Buffer
	for _, message := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersions":[1]}}`,
		`{"jsonrpc":"2.0","id":2,"method":"onDefineDomain","params":{"vmi":{},"domain":"log"}}`,
	} {
		if err := writeFrames(&input, []byte(message), nil); err != nil {
			t.Fatal(err)
		}
	}
	worker.Stdin = &input
	output, err := worker.Output()
	if err != nil {
		t.Fatal(err)
	}
	frames := bytes.NewReader(output)
	if _, err := readFrame(frames); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`{"jsonrpc":"2.0","method":"$/log","params":{"level":"info","message":"of the package log"}}`,
		`{"jsonrpc":"2.0","method":"$/log","params":{"level":"warning","message":"of slog","id":2,"fields":{"a":1}}}`,
		`{"jsonrpc":"2.0","id":2,"result":{"unchanged":true}}`,
	} {
		if frame, err := readFrame(frames); err != nil || string(frame) != want {
			t.Errorf("got  %s, %v\nwant %s", frame, err, want)
		}
	}
}

// earlyWorker logs before and after it runs. With an argument, it has its own handler.
func earlyWorker(own string) int {
	if own != "" {
		slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{
			ReplaceAttr: func(_ []string, attr slog.Attr) slog.Attr {
				if attr.Key == slog.TimeKey {
					return slog.String("of", own)
				}
				return attr
			},
		})))
	}
	defer slog.Warn("after")
	slog.Debug("before", "level", "debug")
	slog.Warn("before")
	worker := Worker{Name: "early"}
	worker.OnDefineDomain(func(ctx context.Context, _ VMI, _ []byte) ([]byte, error) {
		slog.WarnContext(ctx, "during")
		return nil, Refusef("no\nno")
	})
	return worker.Run()
}

func TestWhatIsLoggedBeforeRunHasItsLevel(t *testing.T) {
	for name, test := range map[string]struct {
		own            string
		levels, worker bool
		stderr         string
	}{
		"a call":                  {"", false, false, "WARN before\nWARNING: during\nearly: no\nno\nWARNING: after\n"},
		"a call with levels":      {"", true, false, "<4>before\n<4>during\nearly: no\nno\n<4>after\n"},
		"a worker with levels":    {"", true, true, "<7>before level=debug\n<4>before\n"},
		"its own handler":         {"me", false, false, "of=me level=WARN msg=before\nof=me level=WARN msg=during\nearly: no\nno\nof=me level=WARN msg=after\n"},
		"its own handler, worker": {"me", true, true, "of=me level=WARN msg=before\nof=me level=WARN msg=during\nof=me level=WARN msg=after\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			command := program(t, "early", test.own)
			if test.worker {
				var input bytes.Buffer
				call := `{"jsonrpc":"2.0","id":2,"method":"onDefineDomain","params":{"vmi":{},"domain":"x"}}`
				if err := writeFrames(&input, []byte(call), nil); err != nil {
					t.Fatal(err)
				}
				asWorker(command).Stdin = &input
			} else {
				command.Args = append(command.Args, "--vmi", "{}", "--domain", "x")
			}
			if test.levels {
				command.Env = append(command.Env, levelsVariable+"=1")
			}
			var stdout, stderr bytes.Buffer
			command.Stdout, command.Stderr = &stdout, &stderr
			err := command.Run()
			if (err == nil) != test.worker {
				t.Error(err)
			}
			got := stderr.String()
			if !test.levels {
				// The standard library's own line begins with the time.
				_, after, _ := strings.Cut(got, "WARN before")
				if test.own == "" {
					got = "WARN before" + after
				}
			}
			if got != test.stderr {
				t.Errorf("got  %q\nwant %q", got, test.stderr)
			}
			if logged := strings.Count(stdout.String(), `"method":"$/log"`); test.worker && test.own == "" && logged != 2 {
				t.Errorf("%d lines in %q", logged, stdout.String())
			}
		})
	}
}

func TestArgvStyle(t *testing.T) {
	const vmi = `{"metadata": {"name": "vm1"}}`
	vector := func(do string) string { return `{"vector":` + do + `}` }
	data := " {\n \"UserData\" : \"<&>\" , \"Z\":1.0 }\n"
	for name, test := range map[string]struct {
		program, started string // the program, and the file name that starts it
		args             []string
		status           int
		stdout, stderr   string // all of stdout, part of stderr
		hookContext      string
	}{
		"unchanged prints the very bytes": {
			"vectors", "hooks", []string{"--vmi", vmi, "--domain", "<domain/>\r\n\x01é"}, 0, "<domain/>\r\n\x01é", "", ""},
		"changed": {
			"vectors", "hooks", []string{"--domain", "<domain/>", "--vmi", vector(`{"do":"append","text":"<&>é"}`)}, 0, "<domain/><&>é", "", ""},
		"an empty domain": {
			"vectors", "hooks", []string{"--vmi", vmi, "--domain", ""}, 0, "", "", ""},
		"cloud-init data, unchanged": {
			"vectors", "hooks", []string{"--vmi", vmi, "--cloud-init", data}, 0, data, "", ""},
		"cloud-init data, changed": {
			"vectors", "preCloudInitIso", []string{"--vmi", vector(`{"do":"answer","text":"é<"}`), "--cloud-init", data}, 0,
			" {\n \"UserData\" : \"é<\" , \"Z\":1.0 }\n", "", ""},
		"a print": {
			"vectors", "hooks", []string{"--vmi", vector(`{"do":"print","text":"printed"}`), "--domain", "<domain/>"}, 0, "<domain/>", "printed\n", ""},
		"a log line": {
			"reports", "onDefineDomain", []string{"--vmi", vmi, "--domain", "log"}, 0, "log", "INFO: of the package log\nWARNING: of slog a=1\n", ""},
		"a node hook by its name": {
			"reports", "preVMStart", []string{"--vmi", vmi, "--node", "node-a"}, 0, "", "", ""},
		"a node hook that refuses": {
			"reports", "preVMStart", []string{"--vmi", vmi, "--node", "node-b"}, 1, "", "reports: vm1 on node-b\n", ""},
		"a refusal": {
			"vectors", "hooks", []string{"--vmi", vector(`{"do":"refuse","text":"disk vda is not allowed"}`), "--domain", "<domain/>"}, 1, "",
			"vectors: disk vda is not allowed\n", ""},
		"a refusal with another error": {
			"reports", "preVMStart", []string{"--vmi", vmi, "--node", "joined"}, 1, "",
			"reports: the hook refuses with other errors: an error of type *errors.joinError, which wraps *errors.errorString, which wraps *hook.failure, which wraps *errors.errorString\nreports: no\n", ""},
		"a panic": {
			"vectors", "hooks", []string{"--vmi", vector(`{"do":"fail","text":"vector fault"}`), "--domain", "<domain/>"}, 1, "",
			"vectors: a fault in the hook: a panic with a value of type string\n  at sidecar-shim.example/hook.behave (", ""},
		"the context": {
			"vectors", "hooks", []string{"--vmi", vector(`{"do":"invocation"}`), "--domain", "<domain/>"}, 1, "",
			"attempt 1, context MigrationTarget, node none\n", "MigrationTarget"},
		"a VMI that is not an object": {
			"vectors", "hooks", []string{"--vmi", `"secret"`, "--domain", "<domain/>"}, 1, "", "vectors: vmi is missing or not an object\n", ""},
		"a domain that is not UTF-8": {
			"vectors", "hooks", []string{"--vmi", vmi, "--domain", "secret\xff"}, 1, "", "vectors: domain is not UTF-8\n", ""},
		"cloud-init data that is not an object": {
			"vectors", "hooks", []string{"--vmi", vmi, "--cloud-init", "[]"}, 1, "", "vectors: cloudInitData is missing or not an object\n", ""},
		"help": {
			"vectors", "hooks", []string{"--help"}, 0, "usage: onDefineDomain --vmi JSON --domain XML\n" +
				"       preCloudInitIso --vmi JSON --cloud-init JSON\n       preVMStart --vmi JSON --node NAME\n" +
				"       or as a worker of sidecar-shim --mode persistent\n", "", ""},
		"no arguments": {
			"vectors", "hooks", nil, 2, "", "vectors: no flag selects a hook\nusage: ", ""},
		"the name without arguments": {
			"vectors", "onDefineDomain", nil, 2, "", "vectors: onDefineDomain takes --vmi JSON --domain XML\n", ""},
		"a node hook by its flag": {
			"reports", "hooks", []string{"--vmi", vmi, "--node", "node-a"}, 2, "", "reports: --node does not select a hook: ", ""},
		"a hook that is not registered": {
			"reports", "hooks", []string{"--vmi", vmi, "--cloud-init", "{}"}, 2, "", "reports: this program has no hook preCloudInitIso\n", ""},
		"a name that is not registered": {
			"reports", "preCloudInitIso", []string{"--vmi", vmi, "--domain", "<domain/>"}, 2, "", "reports: this program has no hook preCloudInitIso\n", ""},
		"another hook's flag": {
			"reports", "preVMStart", []string{"--vmi", vmi, "--domain", "secret"}, 2, "", "reports: preVMStart takes --vmi JSON --node NAME\n", ""},
		"a flag too many": {
			"vectors", "hooks", []string{"--vmi", vmi, "--domain", "secret", "--node", "a"}, 2, "", "vectors: --node does not select", ""},
		"a flag twice": {
			"vectors", "hooks", []string{"--vmi", vmi, "--vmi", "secret"}, 2, "", "vectors: --vmi is given twice\n", ""},
		"a flag without a value": {
			"vectors", "hooks", []string{"--vmi", vmi, "--domain"}, 2, "", "vectors: --domain has no value\n", ""},
		"no flag": {
			"vectors", "hooks", []string{"--vmi", vmi, "secret", "<domain/>"}, 2, "", "vectors: argument 3 is not one of --vmi, --domain, ", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			link := filepath.Join(t.TempDir(), test.started)
			if err := os.Symlink(os.Args[0], link); err != nil {
				t.Fatal(err)
			}
			command := program(t, test.program, "1", test.args...)
			command.Path, command.Args[0] = link, link
			command.Env = append(command.Env, contextVariable+"="+test.hookContext)
			var stdout, stderr bytes.Buffer
			command.Stdout, command.Stderr = &stdout, &stderr
			err := command.Run()
			if status := command.ProcessState.ExitCode(); status != test.status {
				t.Errorf("%v, not %d", err, test.status)
			}
			if stdout.String() != test.stdout {
				t.Errorf("stdout is %q, not %q", stdout.String(), test.stdout)
			}
			if !strings.Contains(stderr.String(), test.stderr) || (test.stderr == "" && stderr.Len() > 0) {
				t.Errorf("stderr is %q, not %q", stderr.String(), test.stderr)
			}
			if strings.Contains(stderr.String(), "secret") || strings.Contains(stderr.String(), "vector fault") {
				t.Errorf("stderr quotes a document: %q", stderr.String())
			}
		})
	}
}

func TestAWorkerWithoutHooksPanics(t *testing.T) {
	output, err := asWorker(program(t, "empty", "")).CombinedOutput()
	if want := "panic: hook: invalid worker with 0 hooks and concurrency 0"; err == nil || !strings.Contains(string(output), want) {
		t.Errorf("%v: %s", err, output)
	}
}
