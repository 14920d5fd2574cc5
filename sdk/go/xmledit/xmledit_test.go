package xmledit_test

import (
	"encoding/xml"
	"fmt"
	"io"
	"math/rand"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sidecar-shim.example/hook/xmledit"
)

// odd is a document in a form that encoding/xml would not write.
const odd = "\ufeff<?xml version='1.0'  encoding=\"UTF-8\"?>\r\n<!-- head -->\n" +
	"<domain  type = 'kvm'\n\txmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\" >\r\n" +
	"  <name>a &amp; b &#x20AC;</name><!-- in --><empty /><also></also >\n" +
	"  <metadata><kubevirt xmlns='http://kubevirt.io'><uid/></kubevirt></metadata>\n" +
	"  <text><![CDATA[<x>]]> &lt;y&gt;\r\n</text><?pi data?>\n" +
	"</domain >\n<!-- tail -->\n"

func TestUnchangedDocumentsStayByteForByte(t *testing.T) {
	for _, document := range []string{odd, sample(t), "<a/>", "<a></a>\n", " <a/>"} {
		if got := edited(t, document, func(*xmledit.Element) {}); got != document {
			t.Errorf("%q became %q", document, got)
		}
	}
}

func TestWhatIsReadIsWhatTheDocumentSays(t *testing.T) {
	edited(t, odd, func(root *xmledit.Element) {
		if got := root.Child("name").Text(); got != "a & b €" {
			t.Errorf("a text with references: %q", got)
		}
		if got := root.Child("text").Text(); got != "<x> <y>\n" {
			t.Errorf("a text with a CDATA section: %q", got)
		}
		if got, ok := root.Attr("xmlns:qemu"); !ok || !strings.HasSuffix(got, "qemu/1.0") {
			t.Errorf("a namespace declaration: %q, %t", got, ok)
		}
		if got, ok := root.Child("no").Child("such").Attr("thing"); ok || got != "" {
			t.Errorf("what is not there: %q, %t", got, ok)
		}
		if got := root.Child("metadata").Child("kubevirt").Child("uid").Name(); got != "uid" {
			t.Errorf("a nested element: %q", got)
		}
	})
}

func TestChangesTouchNothingElse(t *testing.T) {
	for name, test := range map[string]struct {
		before, after string
		change        func(root *xmledit.Element)
	}{
		"a text": {"<a>\n <b x='1'>old</b>\n</a>", "<a>\n <b x='1'>n &lt; \"w\"</b>\n</a>",
			func(root *xmledit.Element) { root.Child("b").SetText(`n < "w"`) }},
		"the text that is there": {"<a><b><![CDATA[&]]></b></a>", "<a><b><![CDATA[&]]></b></a>",
			func(root *xmledit.Element) { root.Child("b").SetText("&") }},
		"a text in place of elements": {"<a><b/></a>", "<a>t</a>",
			func(root *xmledit.Element) { root.SetText("t") }},
		"the text of an empty element": {"<a><b c='d' /></a>", "<a><b c='d'>t</b></a>",
			func(root *xmledit.Element) { root.Child("b").SetText("t") }},
		"an attribute's value": {"<a  one='>' two = \"2\" three='3'/>", "<a  one='>' two = \"&quot;&#10;\" three='3'/>",
			func(root *xmledit.Element) { root.SetAttr("two", "\"\n") }},
		"the value that is there": {"<a one='&#49;'/>", "<a one='&#49;'/>",
			func(root *xmledit.Element) { root.SetAttr("one", "1") }},
		"another attribute": {"<a one='1' ></a>", "<a one='1' p:two=\"2\" ></a>",
			func(root *xmledit.Element) { root.SetAttr("p:two", "2"); root.SetAttr("p:two", "2") }},
		"an attribute of an empty element": {"<a />", "<a b=\"c\" />",
			func(root *xmledit.Element) { root.SetAttr("b", "c") }},
		"a new element on a separate line": {"<a>\n\t<b/>\n</a>", "<a>\n\t<b/>\n\t<c d=\"e\"></c>\n</a>",
			func(root *xmledit.Element) { root.Ensure("c", "d", "e") }},
		"two new elements": {"<a>\n\t<b/>\n</a>", "<a>\n\t<b/>\n\t<c></c>\n\t<d></d>\n</a>",
			func(root *xmledit.Element) { root.Append("c"); root.Append("d") }},
		"a new element on the same line": {"<a><b/></a>", "<a><b/><c></c></a>",
			func(root *xmledit.Element) { root.Ensure("c") }},
		"a new element in an empty one": {"<a><b/></a>", "<a><b><c><d></d></c></b></a>",
			func(root *xmledit.Element) { root.Ensure("b").Ensure("c").Ensure("d") }},
		"an element that is there": {"<a><b c='d'/><b c='e'/></a>", "<a><b c='d'/><b c='e' f=\"g\"/></a>",
			func(root *xmledit.Element) { root.Ensure("b", "c", "e").SetAttr("f", "g") }},
		"an element less": {"<a>\n\t<b/>\n\t<c/>\n</a>", "<a>\n\t<c/>\n</a>",
			func(root *xmledit.Element) { root.Remove(root.Child("b")) }},
		"every element less": {"<a>\n\t<b/>\n\t<c/><b/>\n</a>", "<a>\n\t<c/>\n</a>",
			func(root *xmledit.Element) {
				for _, b := range root.Children("b") {
					root.Remove(b)
				}
			}},
		"an element that is not there": {"<a><b/></a>", "<a><b/></a>",
			func(root *xmledit.Element) { root.Remove(nil); root.Remove(root) }},
	} {
		t.Run(name, func(t *testing.T) {
			got := edited(t, test.before, test.change)
			if got != test.after {
				t.Errorf("got  %q\nwant %q", got, test.after)
			}
			if again := edited(t, got, test.change); strings.HasPrefix(name, "a text") && again != got {
				t.Errorf("the same change to its own result: %q", again)
			}
		})
	}
}

// contents is what a document says: its elements, attributes and texts, by Go's own decoder.
func contents(t *testing.T, document string) []string {
	t.Helper()
	var found []string
	decoder := xml.NewDecoder(strings.NewReader(document))
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return found
		}
		if err != nil {
			t.Fatalf("%v: %s", err, document)
		}
		switch token := token.(type) {
		case xml.StartElement:
			found = append(found, fmt.Sprintf("%s %q", token.Name.Local, token.Attr))
		case xml.CharData:
			found = append(found, fmt.Sprintf("%q", token))
		}
	}
}

// Whatever the value, it is what the document holds then, and the rest is as it was.
func TestAValueIsReadBackAsItWasSet(t *testing.T) {
	alphabet := []rune("ab' \"<>&=/;\t\n\r\u00e9\U0001f600")
	random := rand.New(rand.NewSource(1))
	for range 2000 {
		value := make([]rune, random.Intn(9))
		for i := range value {
			value[i] = alphabet[random.Intn(len(alphabet))]
		}
		quote := string(`"'`[random.Intn(2)])
		before := "<d><s a='1' mode=" + quote + "old" + quote + " b=\"2\">text</s><s mode='5'/></d>"
		after := edited(t, before, func(root *xmledit.Element) {
			root.Child("s").SetAttr("mode", string(value))
			root.Child("s").SetAttr("new", string(value))
		})
		want := contents(t, before)
		set := func(name string) xml.Attr { return xml.Attr{Name: xml.Name{Local: name}, Value: string(value)} }
		a := xml.Attr{Name: xml.Name{Local: "a"}, Value: "1"}
		b := xml.Attr{Name: xml.Name{Local: "b"}, Value: "2"}
		want[1] = fmt.Sprintf("s %q", []xml.Attr{a, set("mode"), b, set("new")})
		if got := contents(t, after); !slices.Equal(got, want) {
			t.Fatalf("%q gives %s, which says %q and not %q", string(value), after, got, want)
		}
	}
}

func TestBrokenDocumentsAreRefusedWithAPosition(t *testing.T) {
	page, err := os.ReadFile("../../../protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(page), "| elements of a domain | nested up to ")
	number, _, _ := strings.Cut(after, " ")
	depth, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	deepest := strings.Repeat("<a>", depth) + strings.Repeat("</a>", depth)
	if _, err := xmledit.Parse([]byte(deepest)); err != nil {
		t.Errorf("nested %d deep, as protocol.md allows: %v", depth, err)
	}
	deep := "<a>" + deepest + "</a>"
	for document, want := range map[string]string{
		"":                             "line 1, column 1: the document has no element",
		"<!-- secret -->":              "the document has no element",
		"<a>\n<b></a>":                 "line 2, column 8: <b> is closed with </a>",
		"<a><b>":                       "the document ends inside <b>",
		"<a></a></a>":                  "</a> without a start tag",
		"<a/><b/>":                     "a second root element, <b>",
		"<a/>secret":                   "text outside of the root element",
		"secret<a/>":                   "text outside of the root element",
		"<a/>\ufeff":                   "text outside of the root element",
		"<!DOCTYPE secret><a/>":        "a document type",
		" <?xml version='1.0'?><a/>":   "an XML declaration is not at the beginning",
		"<a>&secret;</a>":              "line 1, column 12: not well-formed",
		"<a b=secret/>":                "not well-formed",
		"<a b='<secret'/>":             "not well-formed",
		"<a>\x01</a>":                  "not well-formed",
		"<a>\xff</a>":                  "not UTF-8",
		"<?xml encoding='latin1'?><a>": "not well-formed",
		deep:                           "elements nested deeper than " + number,
	} {
		_, err := xmledit.Parse([]byte(document))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.40q: %v, not %q", document, err, want)
		}
	}
}

func TestWhatXMLCannotHoldIsAnError(t *testing.T) {
	for name, change := range map[string]func(root *xmledit.Element){
		"<b>: the text ":         func(root *xmledit.Element) { root.Ensure("b").SetText("secret\x07") },
		"<a>: the text ":         func(root *xmledit.Element) { root.SetText("secret\ufffe"); root.SetText("good") },
		"<a>: an attribute ":     func(root *xmledit.Element) { root.SetAttr("b", "secret\xff") },
		"<a>: an attribute has ": func(root *xmledit.Element) { root.SetAttr("b c", "") },
		"<a>: the name of a new": func(root *xmledit.Element) { root.Append("b><secret") },
	} {
		document, err := xmledit.Parse([]byte("<a></a>"))
		if err != nil {
			t.Fatal(err)
		}
		change(document.Root())
		if _, err := document.Bytes(); err == nil || !strings.HasPrefix(err.Error(), name) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, document := range []string{odd, "<a b='c'/>", "<a><![CDATA[]]></a>", "<a>&#0;</a>", "<a:b/>"} {
		f.Add(document)
	}
	f.Fuzz(func(t *testing.T, text string) {
		document, err := xmledit.Parse([]byte(text))
		if err != nil {
			return
		}
		if same, err := document.Bytes(); err != nil || string(same) != text {
			t.Fatalf("%q became %q, %v", text, same, err)
		}
		root := document.Root()
		root.SetAttr("added", "<&>\"'\n")
		root.Append("added").SetText("<&>]]>\r\n")
		changed, err := document.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		document, err = xmledit.Parse(changed)
		if err != nil {
			t.Fatalf("%q: %v", changed, err)
		}
		if value, _ := document.Root().Attr("added"); value != "<&>\"'\n" {
			t.Errorf("%q: %q", changed, value)
		}
		added := document.Root().Children("added")
		if got := added[len(added)-1].Text(); got != "<&>]]>\r\n" {
			t.Errorf("%q: %q", changed, got)
		}
	})
}

func ExampleElement_Ensure() {
	document, err := xmledit.Parse([]byte("<domain>\n  <os>\n    <type>hvm</type>\n  </os>\n</domain>\n"))
	if err != nil {
		panic(err)
	}
	document.Root().Ensure("os").Ensure("smbios").SetAttr("mode", "sysinfo")
	changed, err := document.Bytes()
	fmt.Print(string(changed), err)
	// Output:
	// <domain>
	//   <os>
	//     <type>hvm</type>
	//     <smbios mode="sysinfo"></smbios>
	//   </os>
	// </domain>
	// <nil>
}

// edited returns a document after a change.
func edited(t *testing.T, before string, change func(root *xmledit.Element)) string {
	t.Helper()
	document, err := xmledit.Parse([]byte(before))
	if err != nil {
		t.Fatalf("%q: %v", before, err)
	}
	change(document.Root())
	after, err := document.Bytes()
	if err != nil {
		t.Fatalf("%q: %v", before, err)
	}
	return string(after)
}

// sample returns a domain as KubeVirt writes it.
func sample(t *testing.T) string {
	t.Helper()
	domain, err := os.ReadFile("../../../crates/hookctl/src/samples/domain.xml")
	if err != nil {
		t.Fatal(err)
	}
	return string(domain)
}
