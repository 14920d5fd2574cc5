package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// programVariable makes the test binary run one of the programs instead of the tests.
const programVariable = "HOOK_TEST_PROGRAM"

// limit is a watchdog for programs that hang. No test takes this long.
const limit = time.Minute

// programs are the hooks that the tests start.
var programs = map[string]func(argument string) int{
	"vectors": func(concurrency string) int { return vectorWorker(concurrency).Run() },
	"reports": func(string) int { return reportingWorker().Run() },
	"early":   earlyWorker,
	"empty":   func(string) int { return new(Worker).Run() },
}

func TestMain(m *testing.M) {
	if program, ok := programs[os.Getenv(programVariable)]; ok {
		os.Exit(program(os.Getenv(programVariable + "_ARGUMENT")))
	}
	os.Exit(m.Run())
}

// program returns a command that runs one of the programs.
func program(t *testing.T, name, argument string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	command := exec.CommandContext(ctx, os.Args[0], args...)
	command.Env = append(os.Environ(), programVariable+"="+name, programVariable+"_ARGUMENT="+argument)
	return command
}

// asWorker makes a command start as a worker.
func asWorker(command *exec.Cmd) *exec.Cmd {
	command.Env = append(command.Env, protocolVariable+"=1")
	return command
}

// startPiped starts a worker, and returns its pipes and a buffer for its stderr.
func startPiped(t *testing.T, worker *exec.Cmd) (io.WriteCloser, io.ReadCloser, *bytes.Buffer) {
	t.Helper()
	stderr := new(bytes.Buffer)
	worker.Stderr = stderr
	stdin, err := worker.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := worker.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	return stdin, stdout, stderr
}

// vectorWorker returns the worker that protocol/vectors/README.md describes.
func vectorWorker(concurrency string) *Worker {
	worker := &Worker{Name: "vectors", Version: "1.0.0"}
	worker.Concurrency, _ = strconv.Atoi(concurrency)
	worker.OnDefineDomain(func(ctx context.Context, vmi VMI, domain []byte) ([]byte, error) {
		return behave(ctx, vmi, domain, "none", func(text string) ([]byte, error) { return []byte(text), nil })
	})
	worker.PreCloudInitISO(func(ctx context.Context, vmi VMI, data CloudInitData) (CloudInitData, error) {
		return behave(ctx, vmi, data, "none", func(text string) ([]byte, error) { return data.With("UserData", text) })
	})
	worker.OnNode("preVMStart", func(ctx context.Context, vmi VMI, node string) error {
		_, err := behave(ctx, vmi, nil, node, nil)
		return err
	})
	return worker
}

// A vector is an instruction to the vector worker, in its VMI.
type vector struct {
	Do, Text, Level string
	Bytes           int
	Retryable       bool
	Fields          json.RawMessage
	Then            *vector
}

func behave(ctx context.Context, vmi VMI, document []byte, node string, answer func(string) ([]byte, error)) ([]byte, error) {
	var said struct{ Vector *vector }
	if err := vmi.Decode(&said); err != nil {
		return nil, err
	}
	do := said.Vector
	if do != nil && do.Do == "wait" {
		<-ctx.Done()
		if do.Then == nil {
			return nil, ctx.Err()
		}
		do = do.Then
	}
	if do == nil {
		return nil, nil
	}
	switch do.Do {
	case "append":
		return append(document, do.Text...), nil
	case "answer":
		return answer(do.Text)
	case "grow":
		return bytes.Repeat([]byte("x"), do.Bytes), nil
	case "refuse":
		if do.Retryable {
			return nil, Retryf("%s", do.Text)
		}
		return nil, Refusef("%s", do.Text)
	case "reject":
		return nil, InvalidParamsf("%s", do.Text)
	case "fail":
		if node != "none" {
			return nil, errors.New(do.Text)
		}
		panic(do.Text)
	case "invocation":
		call := CallFrom(ctx)
		context := call.Context
		if context == "" {
			context = "none"
		}
		return nil, Refusef("attempt %d, context %s, node %s", call.Attempt, context, node)
	case "log":
		levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warning": slog.LevelWarn, "error": slog.LevelError}
		attrs, err := attrsOf(do.Fields)
		if err != nil {
			return nil, err
		}
		slog.LogAttrs(ctx, levels[do.Level], do.Text, attrs...)
		return nil, nil
	case "print":
		fmt.Println(do.Text)
		return nil, nil
	}
	return nil, fmt.Errorf("no such vector: %s", do.Do)
}

// attrsOf returns the fields of an object in their order.
func attrsOf(object []byte) (attrs []slog.Attr, err error) {
	decoder := json.NewDecoder(bytes.NewReader(object))
	if _, err := decoder.Token(); err != nil {
		return nil, nil // none
	}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		var value any
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		attrs = append(attrs, slog.Any(name.(string), value))
	}
	return attrs, nil
}

// vectorFiles returns the names of the vectors in a directory, without ".json".
func vectorFiles(t *testing.T, directory string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../../protocol/vectors", directory, "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors in %s: %v", directory, err)
	}
	for i, file := range files {
		files[i] = file[:len(file)-len(".json")]
	}
	return files
}

// readFile returns the content of a file.
func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// readUpTo reads a program's output.
func readUpTo(t *testing.T, from io.Reader, bytes int) []byte {
	t.Helper()
	data := make([]byte, bytes)
	if read, err := io.ReadFull(from, data); err != nil {
		t.Fatalf("%d bytes of %d: %v: %q", read, bytes, err, data[:read])
	}
	return data
}
