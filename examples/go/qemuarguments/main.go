// Passes the options in an annotation of the VM to QEMU, {"-global": "ICH9-LPC.disable_s3=0"} for
// example. Only options in allowed pass: with others, such as -drive, a user who may annotate a VM
// could access files of its pod.
package main

import (
	"context"
	"encoding/json"
	"os"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/xmledit"
)

const annotation = "qemu.vm.kubevirt.io/options"

var allowed = []string{"-boot", "-global", "-rtc"}

func addOptions(_ context.Context, vmi hook.VMI, doc *xmledit.Document) error {
	text, found := vmi.Annotation(annotation)
	if !found {
		return nil
	}
	var options map[string]string
	if json.Unmarshal([]byte(text), &options) != nil {
		return hook.Refusef("annotation %s: not a JSON object of strings", annotation)
	}
	for _, option := range allowed {
		if value, found := options[option]; found && !holds(doc, option, value) {
			line := doc.Ensure("qemu:commandline")
			line.Append("qemu:arg[@value=?]", option)
			line.Append("qemu:arg[@value=?]", value)
		}
		delete(options, option)
	}
	if len(options) > 0 {
		return hook.Refusef("annotation %s: only %q are allowed", annotation, allowed)
	}
	return nil
}

// holds reports whether the option exists, as it does in a later call of the same boot.
func holds(doc *xmledit.Document, option, value string) bool {
	before := ""
	for _, argument := range doc.FindAll("qemu:commandline/qemu:arg") {
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
	worker.OnDefineDomain(xmledit.Hook(addOptions))
	os.Exit(worker.Run())
}
