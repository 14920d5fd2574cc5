// Package hook is the SDK for KubeVirt hooks in Go. It needs only the standard library.
//
// A program registers functions with a [Worker] and calls [Worker.Run]:
//
//	func main() {
//		worker := hook.Worker{Name: "smbios", Version: "1.0.0"}
//		worker.OnDefineDomain(setManufacturer)
//		os.Exit(worker.Run())
//	}
//
// The same program serves both modes of sidecar-shim. With KUBEVIRT_HOOK_PROTOCOL in its
// environment it is a worker: the shim starts it once, and it responds to messages on stdin.
// Otherwise it runs one call, as "onDefineDomain --vmi JSON --domain XML", and prints the result.
//
// # Hooks
//
// Hooks must be idempotent: KubeVirt calls onDefineDomain up to three times per boot, each time
// with a fresh document or with the hook's previous result.
//
// The context of a call is done at the call's deadline, or when the caller has gone. [CallFrom]
// returns the call's metadata.
//
// # Errors
//
// The VM's owner reads the texts of [Refusef], [Retryf] and [InvalidParamsf]. The text of any other
// error, or of a panic, may quote a document, so the shim's log has only its type and, for a panic,
// the stack. At level debug, a second line has the text, for the hook's author. A panic fails only
// its call; but in a goroutine that the hook has started, a panic kills the process, as everywhere
// in Go.
//
// # Log and stdout
//
// [LogHandler] writes to the shim's log. It is the default handler of log/slog, unless the program
// sets another. slog.InfoContext and similar functions, called with the context of a call, add the
// call's id. Output of a hook and its child processes to stdout goes to stderr, because stdout
// carries the messages to the shim.
package hook

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// A DomainFunc changes a libvirt domain, which is a whole XML document. It returns the new
// document, or nil for no change.
type DomainFunc func(ctx context.Context, vmi VMI, domain []byte) ([]byte, error)

// A CloudInitFunc changes cloud-init data. It returns the new data, or nil for no change.
type CloudInitFunc func(ctx context.Context, vmi VMI, data CloudInitData) (CloudInitData, error)

// A NodeFunc acts on the node of a VM.
type NodeFunc func(ctx context.Context, vmi VMI, node string) error

// A Worker is a program with hooks. Register all hooks, then call Run.
type Worker struct {
	// Name and Version appear in the shim's log. The default name is that of the program.
	Name, Version string

	// Concurrency is the maximum number of concurrent calls, from 1 to 64; 0 means 1. If it is more
	// than 1, the hooks must be safe for concurrent use.
	Concurrency int

	// LogLevel is the minimum level of log lines. nil means that of the shim's own log, or
	// slog.LevelInfo if that is not known, as in the style of one call per process.
	LogLevel slog.Leveler

	hooks map[string]registered
}

// registered is a hook of any kind.
type registered struct {
	subject subject
	// run returns nil for no change. It may change its arguments.
	run func(ctx context.Context, vmi VMI, subject []byte) ([]byte, error)
}

// A subject is the document of a hook other than the VMI, by its name in the params of a call.
type subject string

const (
	domain        subject = "domain"
	cloudInitData subject = "cloudInitData"
	nodeName      subject = "nodeName"
)

const (
	onDefineDomain  = "onDefineDomain"
	preCloudInitIso = "preCloudInitIso"

	// maxConcurrency is the shim's limit on concurrent calls per worker.
	maxConcurrency = 64
)

// hookName matches the names that the protocol allows for hooks.
var hookName = regexp.MustCompile(`^[a-z][A-Za-z0-9]{0,62}$`)

// OnDefineDomain registers the function that changes domains.
func (w *Worker) OnDefineDomain(hook DomainFunc) {
	w.register(onDefineDomain, hook == nil, registered{domain, hook})
}

// PreCloudInitISO registers the function that changes cloud-init data.
func (w *Worker) PreCloudInitISO(hook CloudInitFunc) {
	w.register(preCloudInitIso, hook == nil, registered{
		cloudInitData,
		func(ctx context.Context, vmi VMI, data []byte) ([]byte, error) { return hook(ctx, vmi, data) },
	})
}

// Hook points of nodes.
const (
	PreVMStart          = "preVMStart"
	PostVMStart         = "postVMStart"
	PreVMStop           = "preVMStop" // the same as OnVMStop
	OnVMStop            = "onVMStop"  // its name in KubeVirt 1.10
	PostVMStop          = "postVMStop"
	PreMigrationSource  = "preMigrationSource"
	PreMigrationTarget  = "preMigrationTarget"
	PostMigrationTarget = "postMigrationTarget"
)

// OnNode registers a function for a hook point of nodes: PreVMStart and the other constants, or the
// name of one that a later KubeVirt adds.
func (w *Worker) OnNode(name string, hook NodeFunc) {
	if !hookName.MatchString(name) || slices.Contains([]string{onDefineDomain, preCloudInitIso, "initialize"}, name) {
		panic(fmt.Sprintf("hook: invalid name of a node hook: %q (it is KubeVirt's name with a lower-case first"+
			" letter, such as \"preVMStart\")", name))
	}
	w.register(name, hook == nil, registered{
		nodeName,
		func(ctx context.Context, vmi VMI, node []byte) ([]byte, error) {
			return nil, hook(ctx, vmi, string(node))
		},
	})
}

func (w *Worker) register(name string, missing bool, hook registered) {
	if missing {
		panic("hook: nil function for " + name)
	}
	if _, twice := w.hooks[name]; twice {
		panic("hook: " + name + " is already registered")
	}
	if w.hooks == nil {
		w.hooks = make(map[string]registered)
	}
	w.hooks[name] = hook
}

// protocolVariable is set in the environment of workers.
const protocolVariable = "KUBEVIRT_HOOK_PROTOCOL"

// Run serves the hooks, and returns the exit status of the program when it has nothing more to do:
//
//	os.Exit(worker.Run())
//
// A worker's status is 0 after the end of stdin, or 1 after a fatal error. That of a single call is
// 0, 1 if the hook failed, or 2 if the command line is invalid. The reason goes to stderr.
func (w *Worker) Run() (status int) {
	if len(w.hooks) == 0 || w.Concurrency < 0 || w.Concurrency > maxConcurrency {
		panic(fmt.Sprintf("hook: invalid worker with %d hooks and concurrency %d", len(w.hooks), w.Concurrency))
	}
	// Removed, so that programs started by a hook do not act as workers.
	_, persistent := os.LookupEnv(protocolVariable)
	os.Unsetenv(protocolVariable)
	output, err := takeStdout()
	if err != nil {
		return w.fatal(fmt.Sprintf("cannot redirect stdout: %v", err), 1)
	}
	if persistent {
		return w.serve(steps{output})
	}
	return w.runOnce(os.Args, output)
}

// fatal writes the reason of an exit to stderr, and returns its status.
func (w *Worker) fatal(reason string, status int) int {
	// Without a level: the shim reports it as the reason of the failure or the exit.
	fmt.Fprintln(os.Stderr, strings.TrimRight(w.name()+": "+reason, "\n"))
	return status
}

func (w *Worker) name() string {
	if w.Name == "" {
		return filepath.Base(os.Args[0])
	}
	return w.Name
}

// hookNames returns the names of the hooks, sorted.
func (w *Worker) hookNames() []string {
	names := make([]string, 0, len(w.hooks))
	for name := range w.hooks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
