// Sets the time zone of a VM's guest to the VM's annotation example.org/timezone.
package main

import (
	"context"
	"os"
	"regexp"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/cloudinit"
)

const annotation = "example.org/timezone"

var timezone = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)

// setTimezone returns the VM's cloud-init data with a part of user data beside the owner's.
func setTimezone(_ context.Context, vmi hook.VMI, data hook.CloudInitData) (hook.CloudInitData, error) {
	name, found := vmi.Annotation(annotation)
	if !found {
		return nil, nil // nothing changes
	}
	if !timezone.MatchString(name) {
		// The VM's owner reads this text in the VM's events.
		return nil, hook.Refusef("annotation %s: not the name of a time zone", annotation)
	}
	var owner struct{ UserData string }
	if err := data.Decode(&owner); err != nil {
		return nil, err
	}
	part := cloudinit.Part{Name: "@PROGRAM@", Content: "#cloud-config\ntimezone: \"" + name + "\"\n"}
	userData, err := cloudinit.Put(owner.UserData, part)
	if err != nil {
		return nil, err
	}
	return data.With("UserData", userData)
}

func main() {
	worker := hook.Worker{Name: "@NAME@", Version: "0.1.0"}
	worker.PreCloudInitISO(setTimezone)
	os.Exit(worker.Run())
}
