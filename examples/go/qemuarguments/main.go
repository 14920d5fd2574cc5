// Passes the options in an annotation of the VM to QEMU, {"-global": "ICH9-LPC.disable_s3=0"} for
// example. Only options in allowed pass: with others, such as -drive, a user who may annotate a VM
// could access files of its pod.
package main

import (
	"context"
	"encoding/json"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/xmledit"
)

const annotation = "qemu.vm.kubevirt.io/options"

const namespace = "http://libvirt.org/schemas/domain/qemu/1.0"

var allowed = []string{"-boot", "-global", "-rtc"}

func addOptions(_ context.Context, vmi hook.VMI, domain []byte) ([]byte, error) {
	metadata, err := vmi.Metadata()
	text, found := metadata.Annotations[annotation]
	if err != nil || !found {
		return nil, err
	}
	var options map[string]string
	if json.Unmarshal([]byte(text), &options) != nil {
		return nil, hook.Refuse("annotation %s: not a JSON object of strings", annotation)
	}
	document, err := xmledit.Parse(domain)
	if err != nil {
		return nil, hook.InvalidParams("domain: %w", err)
	}
	// KubeVirt's Plugins API returns the hook's own result without the prefix.
	line, name := document.Root().Child("commandline", "xmlns", namespace), "arg"
	if line == nil {
		document.Root().SetAttr("xmlns:qemu", namespace)
		line, name = document.Root().Ensure("qemu:commandline"), "qemu:arg"
	}
	for _, option := range allowed {
		if value, found := options[option]; found && !holds(line.Children(name), option, value) {
			line.Append(name, "value", option)
			line.Append(name, "value", value)
		}
		delete(options, option)
	}
	if len(options) > 0 {
		return nil, hook.Refuse("annotation %s: only %q are allowed", annotation, allowed)
	}
	return document.Bytes()
}

// holds reports whether the option exists, as it does in a later call of the same boot.
func holds(arguments []*xmledit.Element, option, value string) bool {
	before := ""
	for _, argument := range arguments {
		text, _ := argument.Attr("value")
		if before == option && text == value {
			return true
		}
		before = text
	}
	return false
}

func main() {
	worker := hook.Worker{Name: "qemu-arguments", Version: "1.0.0"}
	worker.OnDefineDomain(addOptions)
	worker.Run()
}
