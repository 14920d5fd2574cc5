package main

import (
	"context"
	"strings"
	"testing"

	"sidecar-shim.example/hook"
)

var vmi = hook.VMI(`{"metadata":{"annotations":{"timezone.vm.kubevirt.io/name":"Europe/Lisbon"}}}`)

func TestTheOwnersUserDataStays(t *testing.T) {
	data, err := setTimezone(context.Background(), vmi, hook.CloudInitData(`{"UserData":"#!/bin/sh\n"}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`\n\n#!/bin/sh\n\n--`, `\n\n#cloud-config\ntimezone: \"Europe/Lisbon\"\n\n--`} {
		if !strings.Contains(string(data), part) {
			t.Errorf("there is no %s in %s", part, data)
		}
	}
	again, err := setTimezone(context.Background(), vmi, data)
	if err != nil || string(again) != string(data) {
		t.Errorf("the second time: %v, %s", err, again)
	}
}

func TestUserDataForAnotherProgramIsRefused(t *testing.T) {
	_, err := setTimezone(context.Background(), vmi, hook.CloudInitData(`{"UserData":"{}"}`))
	if err == nil || !strings.Contains(err.Error(), "is not for cloud-init") {
		t.Error(err)
	}
}
