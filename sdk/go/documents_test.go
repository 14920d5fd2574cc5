package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestHelpersFindNothingWhereSomethingIsMissing(t *testing.T) {
	const full = ` {"kind":"VirtualMachineInstance","metadata":{"name":"vm1","namespace":"ns","annotations":{"a.b/c":"<d>","n":1,"null":null},"labels":null},
		"spec":{"domain":{"memory":{"hugepages":{"pageSize":"2Mi"},"guest":null}},"networks":[{"name":"default"},[7]]}}`
	vmi := VMI(full)
	if vmi.Name() != "vm1" || vmi.Namespace() != "ns" {
		t.Errorf("%q in %q", vmi.Name(), vmi.Namespace())
	}
	if value, ok := vmi.Annotation("a.b/c"); value != "<d>" || !ok {
		t.Errorf("%q, %t", value, ok)
	}
	for path, want := range map[string]string{
		"spec.domain.memory.hugepages":          `{"pageSize":"2Mi"}`,
		"spec.domain.memory.hugepages.pageSize": `"2Mi"`,
		"spec.networks.0.name":                  `"default"`,
		"spec.networks.1.0":                     "7",
		"spec.networks.2":                       "",
		"spec.networks.-1":                      "",
		"spec.networks.name":                    "",
		"spec.domain.memory.guest":              "",
		"spec.domain.memory.guest.x":            "",
		"metadata.name.x":                       "",
		"spec.none.x":                           "",
		"":                                      "",
		"spec.":                                 "",
	} {
		var got json.RawMessage
		value := vmi.At(path)
		if err := value.Decode(&got); err != nil || string(got) != want || (want == "") != (value == nil) {
			t.Errorf("%s: %s, %v, not %s", path, got, err, want)
		}
	}
	for _, text := range []string{full, "{}", `{"metadata":null}`, `{"metadata":{"annotations":null}}`, `[]`, `{"metadata":`, "", `{"metadata":[]}`} {
		vmi := VMI(text)
		label, hasLabel := vmi.Label("none")
		number, hasNumber := vmi.Annotation("n")
		null, hasNull := vmi.Annotation("null")
		if hasLabel || hasNumber || hasNull || label+number+null != "" {
			t.Errorf("%s has %q, %q, %q", text, label, number, null)
		}
		if text != full && vmi.Name()+vmi.Namespace() != "" {
			t.Errorf("%s has a name", text)
		}
	}
}

func TestValuesAreDecoded(t *testing.T) {
	vmi := VMI(`{"spec":{"networks":[{"name":"default"},{"name":"second"}],"cores":"secret"}}`)
	var networks []struct{ Name string }
	if err := vmi.At("spec.networks").Decode(&networks); err != nil || len(networks) != 2 || networks[1].Name != "second" {
		t.Errorf("%v, %v", networks, err)
	}
	cores := 1
	if err := vmi.At("spec.none").Decode(&cores); err != nil || cores != 1 {
		t.Errorf("nothing gives %d, %v", cores, err)
	}
	var missing *Value
	if text, ok := missing.Text(); ok || text != "" || missing.Decode(&cores) != nil || cores != 1 {
		t.Errorf("nothing is %q", text)
	}
	if text, ok := vmi.At("spec.networks").Text(); ok {
		t.Errorf("an array is the text %q", text)
	}
}

func TestErrorsHaveAKind(t *testing.T) {
	for text, test := range map[string]struct {
		err   error
		kinds []error
	}{
		"refused":  {fmt.Errorf("%w", Refusef("refused")), []error{ErrRefused}},
		"later":    {errors.Join(Retryf("later")), []error{ErrRefused, ErrRetryable}},
		"params 1": {InvalidParamsf("params %d", 1), []error{ErrInvalidParams}},
		"other":    {errors.New("other"), nil},
	} {
		for _, kind := range []error{ErrRefused, ErrRetryable, ErrInvalidParams} {
			if got := errors.Is(test.err, kind); got != slices.Contains(test.kinds, kind) || test.err.Error() != text {
				t.Errorf("%v is %v: %t", test.err, kind, got)
			}
		}
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
		if !errors.Is(err, ErrInvalidParams) || !strings.EqualFold(err.Error(), want) {
			t.Errorf("%s: %v, not %s", vmi, err, want)
		}
	}
	var named struct{ Name int }
	var texts []json.Number
	const values = `{"spec":{"cores":"secret","networks":[{"name":"secret"}],"x":{"a":{"name":"secret"}}}}`
	for path, test := range map[string]struct {
		target any
		want   string
	}{
		"spec.cores":      {new(int), "vmi: spec.cores cannot be decoded as int"},
		"spec.x.a":        {&named, "vmi: spec.x.a.name cannot be decoded as int"},
		"spec.x":          {&struct{ A struct{ Name []int } }{}, "vmi: spec.x.a.name cannot be decoded as []int"},
		"spec.networks.0": {&named, "vmi: spec.networks.0.name cannot be decoded as int"},
		"spec.networks":   {&texts, "vmi: spec.networks cannot be decoded as json.Number"},
	} {
		err := VMI(values).At(path).Decode(test.target)
		if !errors.Is(err, ErrInvalidParams) || !strings.EqualFold(err.Error(), test.want) {
			t.Errorf("%s: %v, not %s", path, err, test.want)
		}
	}
	if err := (CloudInitData("{}")).Decode(nil); err == nil || errors.Is(err, ErrInvalidParams) {
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
	text, err := json.Marshal(map[string]any{"vmi": VMI(`{"a":1}`), "data": CloudInitData(`{"b":2}`), "none": VMI(nil),
		"value": VMI(`{"a":[1]}`).At("a"), "nothing": VMI(`{}`).At("a")})
	if err != nil || string(text) != `{"data":{"b":2},"none":null,"nothing":null,"value":[1],"vmi":{"a":1}}` {
		t.Errorf("%s, %v", text, err)
	}
}

func TestOnlyHooksCanBeRegistered(t *testing.T) {
	node := func(context.Context, VMI, string) error { return nil }
	for name, register := range map[string]func(worker *Worker){
		`invalid name of a node hook: ""`: func(worker *Worker) { worker.OnNode("", node) },
		`invalid name of a node hook: "PreVMStart" (it is KubeVirt's name with a lower-case first letter, such as "preVMStart")`: func(worker *Worker) { worker.OnNode("PreVMStart", node) },
		`invalid name of a node hook: "$/log"`:          func(worker *Worker) { worker.OnNode("$/log", node) },
		`invalid name of a node hook: "initialize"`:     func(worker *Worker) { worker.OnNode("initialize", node) },
		`invalid name of a node hook: "onDefineDomain"`: func(worker *Worker) { worker.OnNode("onDefineDomain", node) },
		"nil function for preVMStart":                   func(worker *Worker) { worker.OnNode("preVMStart", nil) },
		"nil function for onDefineDomain":               func(worker *Worker) { worker.OnDefineDomain(nil) },
		"nil function for preCloudInitIso":              func(worker *Worker) { worker.PreCloudInitISO(nil) },
		"postVMStart is already registered": func(worker *Worker) {
			worker.OnNode("postVMStart", node)
			worker.OnNode("postVMStart", node)
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
