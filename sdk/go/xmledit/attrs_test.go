package xmledit_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestManyAttributesAreEditedInTime fails by the timeout of tests if an operation is quadratic.
func TestManyAttributesAreEditedInTime(t *testing.T) {
	const many = 50_000
	var changed, left strings.Builder
	document := parsed(t, "<domain>\n <a   k0 = '0'\n/></domain>")
	element := document.Find("a")
	for i := range many {
		element.SetAttr(fmt.Sprint("k", i), "0")
		element.SetAttr(fmt.Sprint("qemu:k", i), "1")
	}
	for i := range many {
		element.SetAttr(fmt.Sprint("k", i), fmt.Sprint(i, "'"))
		if value, ok := element.Attr(fmt.Sprint("qemu:k", i)); !ok || value != "1" {
			t.Fatalf("attribute %d is %q", i, value)
		}
		text := fmt.Sprintf(` k%d="%d'"`, i, i)
		if i == 0 {
			text = "   k0 = '0&apos;'"
		}
		changed.WriteString(text)
		fmt.Fprintf(&changed, ` qemu:k%d="1"`, i)
		if i%3 == 0 {
			left.WriteString(text)
		}
	}
	start, end := "<domain xmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\">\n <a", "\n/></domain>"
	if got := written(t, document); got != start+changed.String()+end {
		t.Errorf("%d bytes: %.200s…", len(got), got)
	}
	for i := range many {
		element.RemoveAttr(fmt.Sprint("qemu:k", i))
		if i%3 != 0 {
			element.RemoveAttr(fmt.Sprint("k", i))
		}
	}
	element.SetAttr("k1", "")
	element.Append("b")
	if got := written(t, document); got != start+left.String()+" k1=\"\">\n  <b></b>\n </a></domain>" {
		t.Errorf("%d bytes: %.200s…", len(got), got)
	}
	if attrs := element.Attrs(); len(attrs) != (many+2)/3+1 || attrs[1].Name != "k3" || attrs[1].Value != "3'" {
		t.Errorf("%d attributes", len(attrs))
	}
}
