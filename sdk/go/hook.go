// Package hook is the SDK for KubeVirt hooks in Go, with nothing but the standard library.
//
// A program registers functions with a [Worker] and calls [Worker.Run]:
//
//	func main() {
//		worker := hook.Worker{Name: "smbios", Version: "1.0.0"}
//		worker.OnDefineDomain(setManufacturer)
//		worker.Run()
//	}
//
// The same program serves both modes of sidecar-shim. With KUBEVIRT_HOOK_PROTOCOL in its
// environment it is a worker that is started once and answers messages on standard input; without,
// it is started for each call, as "onDefineDomain --vmi JSON --domain XML", and prints the result.
//
// # Hooks
//
// Hooks are idempotent: KubeVirt calls onDefineDomain up to three times for one boot, each time with a
// fresh document or with the hook's own result.
//
// The context of a call ends at its deadline, and when nobody waits for the call any more.
// [CallFrom] says which call it is.
//
// # Errors
//
// What [Refuse], [Retry] and [InvalidParams] say reaches the owner of the VM. The text of any other
// error, or of a panic, goes to standard error alone, which is the shim's log: nobody wrote it for the
// owner, and it may quote a document. A panic ends its call, and the worker lives on; as everywhere
// in Go it ends the process if it happens in a goroutine that the hook has started.
//
// # Log and standard output
//
// Run makes the default logger of log/slog, and so that of log, write to the shim's log.
// slog.InfoContext and the like, given the context of a call, tie a line to the call. What a hook or
// one of its child processes prints to standard output goes to standard error instead, where it can do
// no harm.
package hook

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// A DomainFunc changes a libvirt domain, a whole XML document. It returns the document that takes its
// place, or nil if it changes nothing.
type DomainFunc func(ctx context.Context, vmi VMI, domain []byte) ([]byte, error)

// A CloudInitFunc changes cloud-init data. It returns the data that take their place, or nil if it
// changes nothing.
type CloudInitFunc func(ctx context.Context, vmi VMI, data CloudInitData) (CloudInitData, error)

// A NodeFunc does something on the node that a VM runs on.
type NodeFunc func(ctx context.Context, vmi VMI, node string) error

// A Worker is a program with hooks. Register all hooks, then call Run.
type Worker struct {
	// Name and Version are for people, in the log of the shim. Without a name it is the program's.
	Name, Version string

	// Concurrency is how many calls may come at once, each in a goroutine of its own: 1 to 64, and
	// 1 if it is 0. If it is more, the hooks have to be safe for that.
	Concurrency int

	// LogLevel is the least level of lines that are logged; nil is slog.LevelInfo.
	LogLevel slog.Leveler

	hooks map[string]registered
}

// registered is a hook of any kind.
type registered struct {
	// The member of the call's params that holds what the hook is about: besides the VMI there is
	// one for each kind.
	subject subject
	// nil for nothing to change. What is given to it is its own.
	run func(ctx context.Context, vmi VMI, subject []byte) ([]byte, error)
}

// A subject is what a hook is about besides the VMI, by its name in the params of a call.
type subject string

const (
	domain        subject = "domain"
	cloudInitData subject = "cloudInitData"
	nodeName      subject = "nodeName"
)

const (
	onDefineDomain  = "onDefineDomain"
	preCloudInitIso = "preCloudInitIso"

	// maxConcurrency is what the shim sends at most to one worker.
	maxConcurrency = 64
)

// hookName is what the protocol takes for the name of a hook.
var hookName = regexp.MustCompile(`^[a-z][A-Za-z0-9]{0,62}$`)

// OnDefineDomain registers the function that changes domains.
func (w *Worker) OnDefineDomain(hook DomainFunc) {
	w.register(onDefineDomain, hook == nil, registered{domain, hook})
}

// PreCloudInitIso registers the function that changes cloud-init data.
func (w *Worker) PreCloudInitIso(hook CloudInitFunc) {
	w.register(preCloudInitIso, hook == nil, registered{
		cloudInitData,
		func(ctx context.Context, vmi VMI, data []byte) ([]byte, error) { return hook(ctx, vmi, data) },
	})
}

// NodeHook registers a function for a hook point of nodes: "preVMStart", "postVMStart", "preVMStop",
// "postVMStop", "preMigrationSource", "preMigrationTarget", "postMigrationTarget", or any that KubeVirt
// may add.
func (w *Worker) NodeHook(name string, hook NodeFunc) {
	if !hookName.MatchString(name) || slices.Contains([]string{onDefineDomain, preCloudInitIso, "initialize"}, name) {
		panic(fmt.Sprintf("hook: %q is not the name of a node hook", name))
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
		panic("hook: a nil function for " + name)
	}
	if _, twice := w.hooks[name]; twice {
		panic("hook: a second function for " + name)
	}
	if w.hooks == nil {
		w.hooks = make(map[string]registered)
	}
	w.hooks[name] = hook
}

// protocolVariable says, by being set, that the program is to be a worker.
const protocolVariable = "KUBEVIRT_HOOK_PROTOCOL"

// Run serves the hooks and ends the process. It does not return.
//
// As a worker it ends at the end of standard input, with exit status 0, and with 1 when it cannot go
// on. For a single call the status is 0, or 1 if the hook failed, or 2 if the command line cannot be
// used. Standard error says why.
func (w *Worker) Run() {
	if len(w.hooks) == 0 || w.Concurrency < 0 || w.Concurrency > maxConcurrency {
		panic(fmt.Sprintf("hook: a worker with %d hooks and a concurrency of %d", len(w.hooks), w.Concurrency))
	}
	// Removed, so that no program that a hook starts takes itself for a worker.
	_, persistent := os.LookupEnv(protocolVariable)
	os.Unsetenv(protocolVariable)
	output, err := takeStdout()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: cannot take standard output: %v\n", w.name(), err)
		os.Exit(1)
	}
	if persistent {
		os.Exit(w.serve(steps{output}))
	}
	os.Exit(w.runOnce(os.Args, output))
}

func (w *Worker) name() string {
	if w.Name == "" {
		return filepath.Base(os.Args[0])
	}
	return w.Name
}

// hookNames are the names of the hooks, in order.
func (w *Worker) hookNames() []string {
	names := make([]string, 0, len(w.hooks))
	for name := range w.hooks {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}
