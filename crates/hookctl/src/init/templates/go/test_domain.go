package main

import (
	"errors"
	"fmt"
	"testing"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/hooktest"
	"sidecar-shim.example/hook/xmledit"
)

const (
	domain = `<domain><sysinfo type="smbios"><chassis/></sysinfo></domain>`
	tagged = `<domain><sysinfo type="smbios"><chassis><entry name="asset">R&amp;D</entry></chassis></sysinfo></domain>`
)

func vmi(tag string) hook.VMI {
	return hook.VMI(fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, annotation, tag))
}

func TestTheTagIsSetAndStays(t *testing.T) {
	if got := hooktest.Idempotent(t, xmledit.Hook(setAssetTag), vmi("R&D"), domain); got != tagged {
		t.Errorf("got %s, want %s", got, tagged)
	}
}

func TestWithoutTheAnnotationNothingChanges(t *testing.T) {
	got := hooktest.Idempotent(t, xmledit.Hook(setAssetTag), hook.VMI(`{"metadata": {}}`), domain)
	if got != domain {
		t.Errorf("got %s, want %s", got, domain)
	}
}

func TestAControlCharacterIsRefused(t *testing.T) {
	ctx, _ := hooktest.New(t, hooktest.Call{})
	_, err := xmledit.Hook(setAssetTag)(ctx, vmi("a\tb"), []byte(domain))
	if !errors.Is(err, hook.ErrRefused) {
		t.Errorf("got %v, want a refusal", err)
	}
}
