package main

import (
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/hooktest"
	"sidecar-shim.example/hook/xmledit"
)

// read returns a file of the case that the examples in all languages share.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../cases/vhost-user/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestADiskIsAdded(t *testing.T) {
	vmi := hook.VMI(read(t, "vmi.json"))
	if got, want := hooktest.Idempotent(t, xmledit.Hook(addDisk), vmi, read(t, "domain.xml")), read(t, "expected.xml"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestWithoutTheLabelNothingChanges(t *testing.T) {
	domain := read(t, "domain.xml")
	if got := hooktest.Idempotent(t, xmledit.Hook(addDisk), hook.VMI(`{"metadata": {"labels": null}}`), domain); got != domain {
		t.Error(got)
	}
}

func TestWhatCannotBeIsRefused(t *testing.T) {
	labeled := hook.VMI(read(t, "vmi.json"))
	full := "<domain><devices>"
	for _, letter := range "abcdefghijklmnopqrstuvwxyz" {
		full += "<disk><target dev='vd" + string(letter) + "'/></disk>"
	}
	full += "</devices></domain>"
	for want, test := range map[string]struct {
		vmi    hook.VMI
		domain string
	}{
		"label vhost-user.example/disk: a vhost-user disk needs spec.domain.memory.hugepages": {
			hook.VMI(strings.Replace(string(labeled), `"hugepages"`, `"other"`, 1)), read(t, "domain.xml")},
		"label vhost-user.example/disk: no name from vda to vdz is free": {labeled, full},
	} {
		ctx, _ := hooktest.New(t, hooktest.Call{})
		out, err := xmledit.Hook(addDisk)(ctx, test.vmi, []byte(test.domain))
		if out != nil || !errors.Is(err, hook.ErrRefused) || err.Error() != want {
			t.Errorf("%s, %v, not %s", out, err, want)
		}
	}
}

func TestAVMThatIsToBeMigratedIsWarnedOf(t *testing.T) {
	vmi := read(t, "vmi.json")
	for strategy, warned := range map[string]bool{"LiveMigrate": true, "LiveMigrateIfPossible": true, "None": false} {
		ctx, log := hooktest.New(t, hooktest.Call{})
		migrated := hook.VMI(strings.Replace(vmi, `"LiveMigrate"`, `"`+strategy+`"`, 1))
		if _, err := xmledit.Hook(addDisk)(ctx, migrated, []byte(read(t, "domain.xml"))); err != nil {
			t.Error(err)
		}
		if log.Contains(slog.LevelWarn, "a VM with a vhost-user disk cannot be live-migrated") != warned {
			t.Errorf("%s: %v", strategy, log.Lines())
		}
	}
}
