package hooktest

import (
	"context"
	"testing"

	"sidecar-shim.example/hook"
)

// Idempotent calls a hook, and then once more with each form of its result in which KubeVirt may
// hand that back. The test fails if the hook has anything to do then. It returns the result, which
// is the domain itself if the hook changes nothing.
//
// The forms are the result's own bytes; as hook sidecars get it, indented with tabs and with
// <qemu:commandline>; and as Plugins get it, indented with two spaces and with <commandline
// xmlns="…">. In these two, comments and elements that KubeVirt does not know are gone. A hook that
// adds such an element adds it again, which is not a failure.
func Idempotent(t testing.TB, f hook.DomainFunc, vmi hook.VMI, domain string) string {
	t.Helper()
	ctx, _ := New(t, Call{})
	result, err := call(ctx, f, vmi, domain)
	if err != nil {
		t.Errorf("the hook fails: %v", err)
		return domain
	}
	if again, err := call(ctx, f, vmi, result); err != nil || again != result {
		t.Errorf("the hook is not idempotent: it changes its own result (error: %v)\n%s\nto\n%s", err, result, again)
	}
	for _, form := range []form{forSidecars, forPlugins} {
		received, err := form.rewrite(result)
		if err != nil {
			t.Errorf("the hook's result is not a domain: %v\n%s", err, result)
			return result
		}
		again, err := call(ctx, f, vmi, received)
		if err != nil {
			t.Errorf("the hook fails with its own result, %s: %v\n%s", form.name, err, received)
			continue
		}
		// What KubeVirt does not know is not a difference. An unused declaration goes later.
		before, err := form.rewrite(received)
		after, failed := form.rewrite(again)
		if err != nil || failed != nil || after != before {
			t.Errorf("the hook is not idempotent: it changes its own result, %s:\n%s\nto\n%s", form.name, received, again)
		}
	}
	return result
}

// call calls a hook and returns the domain after it.
func call(ctx context.Context, f hook.DomainFunc, vmi hook.VMI, domain string) (string, error) {
	result, err := f(ctx, vmi, []byte(domain))
	if err != nil || result == nil {
		return domain, err
	}
	return string(result), nil
}
