package hook

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func TestMetadata(t *testing.T) {
	vmi := VMI(`{"kind":"VirtualMachineInstance","metadata":{"name":"vm1","namespace":"ns","annotations":{"a.b/c":"<d>"},"labels":null,"uid":"u"}}`)
	metadata, err := vmi.Metadata()
	if err != nil || metadata.Name != "vm1" || metadata.Namespace != "ns" || metadata.Annotations["a.b/c"] != "<d>" {
		t.Errorf("%+v, %v", metadata, err)
	}
	if label, ok := metadata.Labels["none"]; ok {
		t.Errorf("a label that is not there: %q", label)
	}
	if metadata, err := VMI("{}").Metadata(); err != nil || metadata.Name != "" {
		t.Errorf("%+v, %v", metadata, err)
	}
}

func TestErrorsOfDecodingQuoteNothing(t *testing.T) {
	var target struct{ Spec struct{ Cores int } }
	for vmi, want := range map[string]string{
		`{"spec":{"cores":"secret"}}`: "vmi: spec.cores cannot be decoded as int",
		`{"spec":{"cores":12345.5}}`:  "vmi: spec.cores cannot be decoded as int",
		`{"spec":secret`:              "vmi cannot be decoded",
	} {
		err := VMI(vmi).Decode(&target)
		var failure *Error
		if !errors.As(err, &failure) || failure.Code != CodeInvalidParams || !strings.EqualFold(err.Error(), want) {
			t.Errorf("%s: %v, not %s", vmi, err, want)
		}
	}
	var failure *Error
	if err := (CloudInitData("{}")).Decode(nil); err == nil || errors.As(err, &failure) {
		t.Errorf("an invalid target is a bug in the hook: %v", err)
	}
}

func TestWithTouchesOnlyItsMember(t *testing.T) {
	for name, test := range map[string]struct {
		before, member string
		value          any
		after          string
	}{
		"a text":            {` { "A" : 1.50 , "UserData":"x\u003c" ,"Z":[ ] } `, "UserData", "<é\n>", ` { "A" : 1.50 , "UserData":"<é\n>" ,"Z":[ ] } `},
		"an object":         {`{"A":{ "UserData" : 1 }}`, "A", map[string]int{"b": 2}, `{"A":{"b":2}}`},
		"another case":      {`{"userdata":"x"}`, "UserData", "y", `{"userdata":"x","UserData":"y"}`},
		"a new member":      {"{\n  \"A\": 1\n}", "B", nil, "{\n  \"A\": 1,\"B\":null\n}"},
		"the first member":  {"{ }", "A\"", true, "{\"A\\\"\":true }"},
		"the last of many":  {`{"A":1,"A":2}`, "A", 3, `{"A":1,"A":3}`},
		"a name in escapes": {`{"\u0041":1}`, "A", 2, `{"\u0041":2}`},
	} {
		data := CloudInitData(test.before)
		after, err := data.With(test.member, test.value)
		if err != nil || string(after) != test.after || string(data) != test.before {
			t.Errorf("%s: %s, %v, not %s", name, after, err, test.after)
		}
		if !json.Valid(after) {
			t.Errorf("%s: %s is not JSON", name, after)
		}
	}
	for _, broken := range []string{"", "[]", "null", `{"secret"`, `{"a":secret}`} {
		if after, err := CloudInitData(broken).With("A", 1); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %s, %v", broken, after, err)
		}
	}
	if after, err := CloudInitData("{}").With("A", func() {}); err == nil {
		t.Errorf("a value that JSON does not have: %s", after)
	}
}

func TestDocumentsAreJSONInJSON(t *testing.T) {
	text, err := json.Marshal(map[string]any{"vmi": VMI(`{"a":1}`), "data": CloudInitData(`{"b":2}`), "none": VMI(nil)})
	if err != nil || string(text) != `{"data":{"b":2},"none":null,"vmi":{"a":1}}` {
		t.Errorf("%s, %v", text, err)
	}
}

func TestOnlyHooksCanBeRegistered(t *testing.T) {
	node := func(context.Context, VMI, string) error { return nil }
	for name, register := range map[string]func(worker *Worker){
		`invalid name of a node hook: ""`:               func(worker *Worker) { worker.NodeHook("", node) },
		`invalid name of a node hook: "PreVMStart"`:     func(worker *Worker) { worker.NodeHook("PreVMStart", node) },
		`invalid name of a node hook: "$/log"`:          func(worker *Worker) { worker.NodeHook("$/log", node) },
		`invalid name of a node hook: "initialize"`:     func(worker *Worker) { worker.NodeHook("initialize", node) },
		`invalid name of a node hook: "onDefineDomain"`: func(worker *Worker) { worker.NodeHook("onDefineDomain", node) },
		"nil function for preVMStart":                   func(worker *Worker) { worker.NodeHook("preVMStart", nil) },
		"nil function for onDefineDomain":               func(worker *Worker) { worker.OnDefineDomain(nil) },
		"nil function for preCloudInitIso":              func(worker *Worker) { worker.PreCloudInitIso(nil) },
		"postVMStart is already registered": func(worker *Worker) {
			worker.NodeHook("postVMStart", node)
			worker.NodeHook("postVMStart", node)
		},
	} {
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.HasPrefix(text, "hook: "+name) {
					t.Errorf("%s: %q", name, text)
				}
			}()
			register(new(Worker))
		}()
	}
}

func TestAContextOfNoCall(t *testing.T) {
	if call := CallFrom(context.Background()); call != (Call{}) {
		t.Errorf("%+v", call)
	}
	call := Call{Hook: "onDefineDomain", Attempt: 2, Context: "Boot"}
	if got := CallFrom(WithCall(context.Background(), call)); got != call {
		t.Errorf("%+v", got)
	}
}
