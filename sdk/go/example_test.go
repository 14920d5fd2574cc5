package hook_test

import (
	"context"
	"fmt"
	"log/slog"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/xmledit"
)

// A complete program that sets the title of a domain from an annotation of the VM.
func Example() {
	worker := hook.Worker{Name: "title", Version: "1.0.0"}
	worker.OnDefineDomain(setTitle)
	worker.Run()
}

func setTitle(ctx context.Context, vmi hook.VMI, domain []byte) ([]byte, error) {
	metadata, err := vmi.Metadata()
	if err != nil {
		return nil, err
	}
	title, found := metadata.Annotations["example.com/title"]
	if !found {
		slog.InfoContext(ctx, "no annotation")
		return nil, nil // unchanged
	}
	if len(title) > 80 {
		return nil, hook.Refuse("annotation example.com/title: %d bytes, at most 80 are allowed", len(title))
	}
	document, err := xmledit.Parse(domain)
	if err != nil {
		return nil, hook.InvalidParams("domain: %w", err)
	}
	document.Root().Ensure("title").SetText(title)
	return document.Bytes()
}

// A test calls the hook's function.
func ExampleWorker_OnDefineDomain() {
	vmi := hook.VMI(`{"metadata": {"annotations": {"example.com/title": "R&D"}}}`)
	domain, err := setTitle(context.Background(), vmi, []byte("<domain><name>vm1</name></domain>"))
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

func ExampleWorker_NodeHook() {
	worker := hook.Worker{Name: "gate", Version: "1.0.0", Concurrency: 16}
	worker.NodeHook("preVMStart", func(ctx context.Context, vmi hook.VMI, node string) error {
		if hook.CallFrom(ctx).Attempt == 1 {
			return hook.Retry("the node %s is not ready", node)
		}
		return nil
	})
	worker.Run()
}
