package hook_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/xmledit"
)

// A complete program that sets the title of a domain from an annotation of the VM.
func Example() {
	worker := hook.Worker{Name: "title", Version: "1.0.0"}
	worker.OnDefineDomain(xmledit.Hook(setTitle))
	os.Exit(worker.Run())
}

func setTitle(ctx context.Context, vmi hook.VMI, doc *xmledit.Document) error {
	title, found := vmi.Annotation("example.com/title")
	if !found {
		slog.InfoContext(ctx, "no annotation")
		return nil
	}
	if len(title) > 80 {
		return hook.Refusef("annotation example.com/title: %d bytes, at most 80 are allowed", len(title))
	}
	doc.Ensure("title").SetText(title)
	return nil
}

// A test calls the hook's function.
func ExampleWorker_OnDefineDomain() {
	vmi := hook.VMI(`{"metadata": {"annotations": {"example.com/title": "R&D"}}}`)
	domain, err := xmledit.Hook(setTitle)(context.Background(), vmi, []byte("<domain><name>vm1</name></domain>"))
	fmt.Println(string(domain), err)
	// Output: <domain><name>vm1</name><title>R&amp;D</title></domain> <nil>
}

func ExampleCloudInitData_With() {
	addTimezone := func(_ context.Context, _ hook.VMI, data hook.CloudInitData) (hook.CloudInitData, error) {
		var cloudInit struct{ UserData string }
		if err := data.Decode(&cloudInit); err != nil {
			return nil, err
		}
		return data.With("UserData", cloudInit.UserData+"timezone: Etc/UTC\n")
	}
	data, err := addTimezone(context.Background(), nil, hook.CloudInitData(`{"DataSource":"noCloud","UserData":"#cloud-config\n"}`))
	fmt.Println(string(data), err)
	// Output: {"DataSource":"noCloud","UserData":"#cloud-config\ntimezone: Etc/UTC\n"} <nil>
}

func ExampleWorker_OnNode() {
	worker := hook.Worker{Name: "gate", Version: "1.0.0", Concurrency: 16}
	worker.OnNode(hook.PreVMStart, func(ctx context.Context, vmi hook.VMI, node string) error {
		if hook.CallFrom(ctx).Attempt == 1 {
			return hook.Retryf("the node %s is not ready", node)
		}
		return nil
	})
	os.Exit(worker.Run())
}
