package xmledit_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/internal/xmlcases"
	"sidecar-shim.example/hook/xmledit"
)

// TestVectors does the edits that the SDKs of all languages have to do alike.
func TestVectors(t *testing.T) {
	for _, vector := range vectors(t) {
		t.Run(vector.About, func(t *testing.T) {
			var after string
			edit := func(_ context.Context, _ hook.VMI, document *xmledit.Document) error {
				if err := vector.Apply(document, (*xmledit.Document).Forget); err != nil {
					return err
				}
				changed, err := document.Bytes()
				after = string(changed)
				return err
			}
			result, err := xmledit.Hook(edit)(context.Background(), nil, []byte(vector.Document))
			switch {
			case vector.Error == "document":
				if !errors.Is(err, hook.ErrInvalidParams) || !strings.HasPrefix(err.Error(), "domain: line ") {
					t.Errorf("%q, %v, but it is not well-formed", result, err)
				} else if !strings.Contains(err.Error(), vector.Says) {
					t.Errorf("%v, without %q", err, vector.Says)
				}
			case err != nil:
				t.Error(err)
			case vector.Expect == "unchanged":
				if result != nil || after != string(vector.Document) {
					t.Errorf("the hook returns %q\ngot  %q\nwant %q", result, after, vector.Document)
				}
			case string(result) != string(vector.Expect) || after != string(vector.Expect):
				t.Errorf("got  %q\nwant %q", result, vector.Expect)
			}
		})
	}
}

func vectors(t testing.TB) []xmlcases.Case {
	t.Helper()
	text, err := os.ReadFile("../../vectors/xml.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Cases []xmlcases.Case }
	if err := json.Unmarshal(text, &file); err != nil || len(file.Cases) < 180 {
		t.Fatalf("%d cases: %v", len(file.Cases), err)
	}
	return file.Cases
}
