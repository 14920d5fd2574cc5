// Sets a guest's time zone through cloud-init, from an annotation of the VM, for example
// Europe/Lisbon. The owner's user data stays as it is.
package main

import (
	"context"
	"os"
	"regexp"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/cloudinit"
)

const annotation = "timezone.vm.kubevirt.io/name"

var timezone = regexp.MustCompile(`^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$`)

func setTimezone(_ context.Context, vmi hook.VMI, data hook.CloudInitData) (hook.CloudInitData, error) {
	name, found := vmi.Annotation(annotation)
	if !found {
		return nil, nil
	}
	if !timezone.MatchString(name) {
		return nil, hook.Refusef("annotation %s: not the name of a time zone", annotation)
	}
	var owner struct{ UserData string }
	if err := data.Decode(&owner); err != nil {
		return nil, err
	}
	userData, err := cloudinit.Put(owner.UserData, cloudinit.Part{
		Name:    "timezone.vm.kubevirt.io",
		Content: "#cloud-config\ntimezone: \"" + name + "\"\n",
		Replace: true, // a zone that the owner's user data may set
	})
	if err != nil {
		return nil, err
	}
	return data.With("UserData", userData)
}

func main() {
	worker := hook.Worker{Name: "cloud-init", Version: "1.0.0"}
	worker.PreCloudInitISO(setTimezone)
	os.Exit(worker.Run())
}
