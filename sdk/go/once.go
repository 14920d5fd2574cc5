package hook

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sidecar-shim.example/hook/internal/loglines"
)

// contextVariable holds the context of the call, which workers get in invocation.context.
const contextVariable = "KUBEVIRT_HOOK_CONTEXT"

const vmiFlag = "--vmi"

// subjectFlags are the flags of the documents on a command line, with their placeholders.
var subjectFlags = map[subject]struct{ flag, value string }{
	domain:        {"--domain", "XML"},
	cloudInitData: {"--cloud-init", "JSON"},
	nodeName:      {"--node", "NAME"},
}

// runOnce runs the call on the command line. It returns the exit status.
func (w *Worker) runOnce(args []string, output io.Writer) int {
	if len(args) == 2 && (args[1] == "-h" || args[1] == "--help") {
		fmt.Fprint(output, w.usage())
		return 0
	}
	target := &loglines.Target{Level: w.LogLevel, Write: stderrLines(os.Stderr)}
	if target.Level == nil {
		target.Level = slog.LevelInfo
	}
	startLog(target)
	call, err := w.parse(args)
	if err != nil {
		return w.fatal(fmt.Sprintf("%v\n%s", err, w.usage()), 2)
	}
	call.Context = os.Getenv(contextVariable)
	result, err := call.once()
	if err != nil {
		return w.failOnce(target, err)
	}
	if _, err = output.Write(result); err != nil {
		return w.fatal(fmt.Sprintf("cannot write to stdout: %v", err), 1)
	}
	return 0
}

// failOnce writes to stderr why a call failed. The shim shows the last lines to the VM's owner.
func (w *Worker) failOnce(target *loglines.Target, err error) int {
	ctx := context.Background()
	shown, complete := callerError(ctx, err)
	if !complete {
		report := *target
		report.Write = func(_ context.Context, line loglines.Line) {
			writeLines(os.Stderr, line.Level, w.name()+": "+line.Message)
		}
		logFault(ctx, &report, shown, err)
	}
	if shown == errFault {
		return 1 // its log says more
	}
	return w.fatal(shown.Error(), 1)
}

// once runs a hook and returns the output: the new document, or the old one if it is unchanged.
func (i *invocation) once() ([]byte, error) {
	if err := i.check(); err != nil {
		return nil, err
	}
	result, err := i.run(context.Background())
	if err != nil || i.hook.subject == nodeName {
		return nil, err // a node hook's result is its exit status
	}
	if result == nil {
		result = i.subject
	}
	return result, nil
}

// parse parses a command line. Its errors do not quote arguments that may be documents.
func (w *Worker) parse(args []string) (*invocation, error) {
	given, err := readFlags(args)
	if err != nil {
		return nil, err
	}
	name, err := w.choose(filepath.Base(args[0]), given)
	if err != nil {
		return nil, err
	}
	hook, found := w.hooks[name]
	if !found {
		return nil, fmt.Errorf("this program has no hook %s", name)
	}
	subject := subjectFlags[hook.subject]
	text, found := given[subject.flag]
	vmi, complete := given[vmiFlag]
	if !found || !complete || len(given) != 2 {
		return nil, fmt.Errorf("%s takes %s JSON %s %s", name, vmiFlag, subject.flag, subject.value)
	}
	return &invocation{
		Call:    Call{Hook: name, Attempt: 1},
		hook:    hook,
		vmi:     VMI(vmi),
		subject: []byte(text),
	}, nil
}

// readFlags parses the arguments, which are pairs of flag and value.
func readFlags(args []string) (map[string]string, error) {
	known := []string{vmiFlag, subjectFlags[domain].flag, subjectFlags[cloudInitData].flag, subjectFlags[nodeName].flag}
	given := make(map[string]string)
	for at := 1; at < len(args); at += 2 {
		flag := args[at]
		if !slices.Contains(known, flag) {
			return nil, fmt.Errorf("argument %d is not one of %s", at, strings.Join(known, ", "))
		}
		if _, twice := given[flag]; twice {
			return nil, fmt.Errorf("%s is given twice", flag)
		}
		if at+1 == len(args) {
			return nil, fmt.Errorf("%s has no value", flag)
		}
		given[flag] = args[at+1]
	}
	return given, nil
}

// choose selects the hook by the program's file name or, without a match, by the flags.
func (w *Worker) choose(program string, given map[string]string) (string, error) {
	if _, found := w.hooks[program]; found || program == onDefineDomain || program == preCloudInitIso {
		return program, nil
	}
	has := func(subject subject) bool {
		_, found := given[subjectFlags[subject].flag]
		return found
	}
	switch {
	case has(nodeName):
		return "", errors.New("--node does not select a hook: start this program through a link named after the hook")
	case has(domain):
		return onDefineDomain, nil
	case has(cloudInitData):
		return preCloudInitIso, nil
	}
	return "", errors.New("no flag selects a hook")
}

// usage returns the usage, with a line for each hook.
func (w *Worker) usage() string {
	var lines []string
	for _, name := range w.hookNames() {
		subject := subjectFlags[w.hooks[name].subject]
		lines = append(lines, fmt.Sprintf("%s %s JSON %s %s", name, vmiFlag, subject.flag, subject.value))
	}
	lines = append(lines, "or as a worker of sidecar-shim --mode persistent")
	return "usage: " + strings.Join(lines, "\n       ") + "\n"
}
