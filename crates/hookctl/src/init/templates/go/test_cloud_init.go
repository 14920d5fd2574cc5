package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/hooktest"
)

var data = hook.CloudInitData(`{"DataSource": "noCloud", "UserData": "#cloud-config\nhostname: vm1\n"}`)

func set(t *testing.T, timezone string, data hook.CloudInitData) (hook.CloudInitData, error) {
	t.Helper()
	ctx, _ := hooktest.New(t, hooktest.Call{})
	vmi := hook.VMI(fmt.Sprintf(`{"metadata": {"annotations": {%q: %q}}}`, annotation, timezone))
	return setTimezone(ctx, vmi, data)
}

func TestTheTimeZoneIsAddedAndStays(t *testing.T) {
	once, err := set(t, "Europe/Lisbon", data)
	if err != nil {
		t.Fatal(err)
	}
	var result struct{ UserData string }
	if err := once.Decode(&result); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"hostname: vm1\n", "timezone: \"Europe/Lisbon\"\n"} {
		if !strings.Contains(result.UserData, line) {
			t.Errorf("got %q, want %q in it", result.UserData, line)
		}
	}
	if again, err := set(t, "Europe/Lisbon", once); err != nil || string(again) != string(once) {
		t.Errorf("got %s (%v), want %s", again, err, once)
	}
}

func TestWithoutTheAnnotationNothingChanges(t *testing.T) {
	ctx, _ := hooktest.New(t, hooktest.Call{})
	if got, err := setTimezone(ctx, hook.VMI(`{"metadata": {}}`), data); got != nil || err != nil {
		t.Errorf("got %s (%v), want nothing", got, err)
	}
}

func TestWhatIsNotANameIsRefused(t *testing.T) {
	if _, err := set(t, "\"\nruncmd", data); !errors.Is(err, hook.ErrRefused) {
		t.Errorf("got %v, want a refusal", err)
	}
}
