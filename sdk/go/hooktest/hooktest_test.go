package hooktest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/xmledit"
)

// What KubeVirt's own packages have made of domains, which is recorded for hookctl.
const recorded = "../../../crates/hookctl/src/rewrite/recorded/"

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(recorded + name + ".xml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// meaning returns what a domain says, without what is not modeled: elements are in the order of
// what they contain, and there are none that are empty.
func meaning(t *testing.T, domain string) string {
	t.Helper()
	document, err := xmledit.Parse([]byte(domain))
	if err != nil {
		t.Fatalf("%v: %s", err, domain)
	}
	return content(document.Root())
}

func content(e *xmledit.Element) string {
	var children []string
	for _, child := range e.FindAll("*") {
		if text := content(child); text != "" {
			children = append(children, text)
		}
	}
	attrs := e.Attrs()
	slices.SortFunc(attrs, func(a, b xmledit.Attr) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(children)
	text := strings.TrimSpace(e.Text())
	if len(children) == 0 && len(attrs) == 0 && text == "" {
		return ""
	}
	if len(children) > 0 {
		text = ""
	}
	return fmt.Sprintf("<%s|%s%q>%s%s</>", e.Namespace(), e.Name(), attrs, text, strings.Join(children, ""))
}

func TestADomainIsRewrittenAsKubeVirtDoes(t *testing.T) {
	for _, name := range []string{"vm", "command-lines", "metadata", "foreign"} {
		for kind, form := range map[string]form{"same-sidecar": forSidecars, "same-plugin": forPlugins} {
			got, err := form.rewrite(read(t, name+".sent"))
			if err != nil {
				t.Fatal(err)
			}
			if theirs := read(t, name+"."+kind); meaning(t, got) != meaning(t, theirs) {
				t.Errorf("%s %s:\n%s\nwant\n%s", name, kind, got, theirs)
			}
			if again, err := form.rewrite(got); err != nil || meaning(t, again) != meaning(t, got) {
				t.Errorf("%s %s: what was rewritten changes: %v\n%s", name, kind, err, again)
			}
		}
	}
	for _, broken := range []string{"", "text", "<domain>", "<domain></x>", "<domain>&other;</domain>"} {
		if got, err := forPlugins.rewrite(broken); err == nil {
			t.Errorf("%s: %s", broken, got)
		}
	}
}

func TestWhiteSpaceAndReferencesAreThoseOfKubeVirt(t *testing.T) {
	for kind, form := range map[string]form{"same-sidecar": forSidecars, "same-plugin": forPlugins} {
		got, err := form.rewrite(read(t, "command-lines.sent"))
		if err != nil {
			t.Fatal(err)
		}
		theirs := strings.Split(read(t, "command-lines."+kind), "\n")
		for _, line := range strings.Split(got, "\n") {
			if !slices.Contains(theirs, line) {
				t.Errorf("%s: the line %q is not KubeVirt's", kind, line)
			}
		}
	}
}

// A reporter keeps the errors of a test.
type reporter struct {
	testing.TB
	errors []string
}

func (r *reporter) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestIdempotentFindsWhatIsDoneTwice(t *testing.T) {
	edit := func(f func(doc *xmledit.Document)) hook.DomainFunc {
		return xmledit.Hook(func(_ context.Context, _ hook.VMI, doc *xmledit.Document) error { f(doc); return nil })
	}
	for name, test := range map[string]struct {
		hook hook.DomainFunc
		want []string
	}{
		"idempotent": {edit(func(doc *xmledit.Document) {
			doc.Ensure("os/smbios").SetAttr("mode", "sysinfo")
			doc.Ensure("qemu:commandline/qemu:arg[@value='-s']")
		}), nil},
		"appends": {edit(func(doc *xmledit.Document) { doc.Append("disk") }), []string{"its own result (", "as hook sidecars", "as Plugins"}},
		"adds what KubeVirt does not know": {edit(func(doc *xmledit.Document) {
			doc.Namespace("app", "urn:app")
			doc.Ensure("metadata/app:note")
		}), nil},
		"compares prefixes": {func(_ context.Context, _ hook.VMI, domain []byte) ([]byte, error) {
			if strings.Contains(string(domain), "<qemu:commandline") {
				return nil, nil
			}
			added := `<qemu:commandline xmlns:qemu="` + qemu + `"><qemu:arg value="-s"/></qemu:commandline></domain>`
			return []byte(strings.Replace(string(domain), "</domain>", added, 1)), nil
		}, []string{"as Plugins"}},
		"relies on a comment": {func(_ context.Context, _ hook.VMI, domain []byte) ([]byte, error) {
			if strings.Contains(string(domain), "<!-- done -->") {
				return domain, nil
			}
			return []byte(strings.Replace(string(domain), "</domain>", "<a/><!-- done --></domain>", 1)), nil
		}, []string{"as hook sidecars", "as Plugins"}},
		"fails": {func(context.Context, hook.VMI, []byte) ([]byte, error) { return nil, errors.New("no") },
			[]string{"the hook fails: no"}},
		"breaks": {func(context.Context, hook.VMI, []byte) ([]byte, error) { return []byte("<domain>"), nil },
			[]string{"is not a domain"}},
	} {
		reporter := &reporter{TB: t}
		Idempotent(reporter, test.hook, hook.VMI("{}"), "<domain><os/></domain>")
		if len(reporter.errors) != len(test.want) {
			t.Errorf("%s: %d errors: %q", name, len(reporter.errors), reporter.errors)
			continue
		}
		for i, want := range test.want {
			if !strings.Contains(reporter.errors[i], want) {
				t.Errorf("%s: %q is not %q", name, reporter.errors[i], want)
			}
		}
	}
}

func TestACallHasWhatAHookDecidesBy(t *testing.T) {
	ctx, _ := New(t, Call{Context: hook.MigrationTarget, Attempt: 2, Remaining: time.Hour})
	if call := hook.CallFrom(ctx); call != (hook.Call{Hook: "onDefineDomain", Attempt: 2, Context: hook.MigrationTarget}) {
		t.Errorf("%+v", call)
	}
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > time.Hour || ctx.Err() != nil {
		t.Errorf("%v, %t, %v", deadline, ok, ctx.Err())
	}
	ctx, _ = New(t, Call{Hook: hook.PreVMStart, Cancelled: true})
	if call := hook.CallFrom(ctx); call.Hook != hook.PreVMStart || call.Attempt != 1 || !errors.Is(ctx.Err(), context.Canceled) {
		t.Errorf("%+v, %v", call, ctx.Err())
	}
}

func TestLinesAreKeptApart(t *testing.T) {
	first, firstLog := New(t, Call{})
	slog.Debug("only one")
	t.Run("second", func(t *testing.T) {
		second, secondLog := New(t, Call{})
		slog.With("a", 1).WithGroup("g").WarnContext(second, "second", "b", "x")
		slog.InfoContext(first, "first")
		slog.Info("whose?") // goes to stderr
		if lines := fmt.Sprint(secondLog.Lines()); lines != "[{WARN second map[a:1 g.b:x]}]" {
			t.Error(lines)
		}
		if !secondLog.Contains(slog.LevelWarn, "sec") || secondLog.Contains(slog.LevelInfo, "sec") {
			t.Error("the wrong level")
		}
	})
	slog.Error("one again")
	if lines := fmt.Sprint(firstLog.Lines()); lines != "[{DEBUG only one map[]} {INFO first map[]} {ERROR one again map[]}]" {
		t.Error(lines)
	}
}
