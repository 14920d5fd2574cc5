package xmledit_test

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"sidecar-shim.example/hook"
	"sidecar-shim.example/hook/internal/words"
	"sidecar-shim.example/hook/xmledit"
)

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
		document := parsed(t, before)
		document.Find("s").SetAttr("mode", string(value))
		document.Find("s").SetAttr("new", string(value))
		after := written(t, document)
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
	parsed(t, deepest)
	for document, want := range map[string]string{
		"":                                    "line 1, column 1: the document has no element",
		"<!-- secret -->":                     "the document has no element",
		"<a>\n<b></secret>":                   "line 2, column 4: an end tag that does not match the start tag in line 2",
		"<secret>\n<b>\n":                     "line 3, column 1: the document ends inside of the element that starts in line 2",
		"<a></a></secret>":                    "line 1, column 8: an end tag without a start tag",
		"<a/><secret/>":                       "line 1, column 5: a second root element",
		"<a/>secret":                          "line 1, column 5: text outside of the root element",
		"secret<a/>":                          "line 1, column 1: text outside of the root element",
		"<a/>\ufeff":                          "text outside of the root element",
		"<!DOCTYPE secret><a/>":               "a document type",
		"<a><!ELEMENT secret></a>":            `markup that is not allowed here: "<!"`,
		"<![CDATA[secret]]><a/>":              `markup that is not allowed here: "<!"`,
		" <?xml version='1.0'?><a/>":          "line 1, column 2: an XML declaration that is not at the beginning",
		"<?xml version='1.1'?><a/>":           "an XML declaration with another version than 1.0",
		"<?xml encoding='utf-8'?><a/>":        "an XML declaration without a version",
		"<?xml version='1.0' secret='1'?><a>": "an invalid XML declaration",
		"<?xml version='1.0' encoding='latin1'?><a/>": "an XML declaration with another encoding than utf-8",
		"\ufeff<a>é&secret;</a>":                      "line 1, column 5: an invalid reference",
		"<a>&#xD800;</a>":                             "an invalid reference",
		"<a>&#99999999999;</a>":                       "an invalid reference",
		"<a>& secret</a>":                             "an invalid reference",
		"<a b='&secret;'/>":                           "line 1, column 7: an invalid reference",
		"<a b=secret/>":                               "line 1, column 6: an attribute's value without quotes",
		"<a secret/>":                                 "an attribute without a value",
		"<a b='secret/>":                              "an attribute's value without an end",
		"<a b='secret":                                "an attribute's value without an end",
		"<a 1='secret'/>":                             "an attribute with an invalid name",
		"<a b='<secret'/>":                            `line 1, column 7: "<" in an attribute's value`,
		"<a b='1'c='secret'/>":                        "line 1, column 9: white space expected",
		"<a b='1' b='secret'/>":                       "an attribute twice",
		"<a xmlns:p='u' xmlns:q='u' p:b='secret' q:b=''/>": "with two prefixes for one namespace",
		"<a xmlns:p=''/>":                            "a declaration of a prefix for no namespace",
		"<a xmlns:xml='secret'/>":                    "that XML reserves",
		"<a xmlns='http://www.w3.org/2000/xmlns/'/>": "that XML reserves",
		"<xmlns:secret/>":                            "a tag with an invalid name",
		"<a":                                         "a tag without an end",
		"<":                                          "a tag with an invalid name",
		"<a></":                                      "an end tag that does not match",
		"<a></a b='secret'>":                         "an end tag that does not match",
		"<a></ab>":                                   "an end tag that does not match",
		"<a><!-- secret -- --></a>":                  `line 1, column 16: "--" in a comment`,
		"<a><!-->":                                   "a comment without an end",
		"<a><?secret":                                "an instruction without an end",
		"<a><? secret?></a>":                         "an instruction without a name",
		"<a><?p\"secret?></a>":                       "white space expected",
		"<a><![CDATA[secret</a>":                     "a CDATA section without an end",
		"<a>secret]]></a>":                           `line 1, column 10: "]]>" in a text`,
		"<a>\x01secret</a>":                          "line 1, column 4: a character that XML does not allow",
		"<a>secret\xff</a>":                          "line 1, column 10: a character that XML does not allow, or not UTF-8",
		"<a>" + deepest + "</a>":                     "elements nested deeper than " + number,
		"<a " + strings.Repeat("b='' ", 20) + "/>": "an attribute twice",
	} {
		_, err := xmledit.Parse([]byte(document))
		var syntax *xmledit.SyntaxError
		if !errors.As(err, &syntax) || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.60q: %v, not %q", document, err, want)
		}
	}
}

func TestUnusualDocumentsAreReadRight(t *testing.T) {
	const text = "\ufeff<?xml version='1.0'  encoding=\"UTF-8\" standalone='no' ?>\r\n<?pi?><!-- head -->\n" +
		"<größe:a·b\u0300 xmlns:größe='urn:x' k='a\tb\r\nc&#10;' >&#x20AC;&#0065;<!----><![CDATA[]]]>]] ></größe:a·b\u0300 >"
	document := parsed(t, text)
	root := document.Root()
	if got, _ := root.Attr("k"); got != "a b c\n" || root.Text() != "€A]]] >" {
		t.Errorf("%q, %q", got, root.Text())
	}
	if root.Name() != "a·b\u0300" || root.Namespace() != "urn:x" {
		t.Errorf("%q in %q", root.Name(), root.Namespace())
	}
	root.SetAttr("k", "2")
	if got, want := written(t, document), strings.Replace(text, "'a\tb\r\nc&#10;'", "'2'", 1); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestTheFirstEditThatXMLDoesNotAllowIsTheError(t *testing.T) {
	deep := strings.Repeat("x/", 254) + "x"
	for want, edit := range map[string]func(document *xmledit.Document){
		"<b>: the text ":                   func(d *xmledit.Document) { d.Ensure("b").SetText("secret\x07") },
		"<a>: the text ":                   func(d *xmledit.Document) { d.Root().SetText("secret\ufffe"); d.Root().SetText("good") },
		"<a>: an attribute's value ":       func(d *xmledit.Document) { d.Root().SetAttr("b", "secret\xff") },
		"<a>: an attribute of a new":       func(d *xmledit.Document) { d.Ensure("b/c[@k=?]", "secret\x00").SetAttr("k", "1") },
		"<a>: a new element is nested too": func(d *xmledit.Document) { d.Ensure(deep).SetText("x") },
		"<a>: the root element cannot":     func(d *xmledit.Document) { d.Root().Remove() },
		"<a>: nothing can be inserted":     func(d *xmledit.Document) { d.Root().InsertBefore("b").Append("c") },
	} {
		document := parsed(t, "<a></a>")
		edit(document)
		if out, err := document.Bytes(); err == nil || out != nil || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %q, %v", want, out, err)
		}
		_, err := document.Bytes()
		if _, why, _ := strings.Cut(err.Error(), ": "); string(words.Of(err)) != why {
			t.Errorf("%s: the log has %q", want, words.Of(err))
		}
	}
}

func TestANilElementHasNothingAndIgnoresEdits(t *testing.T) {
	document := parsed(t, "<a/>")
	none := document.Find("no/such")
	none.SetAttr("k", "v")
	none.RemoveAttr("k")
	none.SetText("t")
	none.Remove()
	for name, element := range map[string]*xmledit.Element{
		"find": none.Find("b"), "ensure": none.Ensure("b"), "append": none.Append("b[@k='1']"),
		"insert": none.InsertBefore("b"), "parent": none.Parent(), "parent of the root": document.Root().Parent(),
	} {
		if element != nil {
			t.Errorf("%s: an element", name)
		}
	}
	value, ok := none.Attr("k")
	if value != "" || ok || none.Text() != "" || none.Name() != "" || none.Namespace() != "" || none.Attrs() != nil || none.FindAll("b") != nil {
		t.Error("it has something")
	}
	if got := written(t, document); got != "<a/>" {
		t.Errorf("the document is %q", got)
	}
	for name, misuse := range map[string]func(){
		"a path": func() { none.Find("b[2]") }, "a name": func() { none.SetAttr("a b", "") },
	} {
		if mistake := recovered(misuse); mistake == nil {
			t.Errorf("%s is not checked", name)
		}
	}
}

func recovered(misuse func()) (mistake *xmledit.PathError) {
	defer func() { mistake, _ = recover().(*xmledit.PathError) }()
	misuse()
	return nil
}

func TestPathsThatCannotBeAreMistakes(t *testing.T) {
	document := parsed(t, "<a/>")
	for want, misuse := range map[string]func(){
		`path "b[@k='1'][@k='2']": "k" cannot have two values`:                         func() { document.Ensure("b[@k='1'][@k='2']") },
		`path "b[@k=?]": argument 1 for a ? is missing`:                                func() { document.Find("b[@k=?]") },
		`path "b": 1 arguments for 0 ?`:                                                func() { document.Find("b", "x") },
		`path "qemu": the prefix stands for another namespace`:                         func() { document.Namespace("qemu", "urn:x") },
		`path "xmlns": the prefix stands for another namespace`:                        func() { document.Namespace("xmlns", "urn:x") },
		`path "a:b": ":" at character 2: the end is expected`:                          func() { document.Namespace("a:b", "urn:x") },
		`path "": the end at character 1: a name is expected`:                          func() { document.Namespace("", "urn:x") },
		`path "p": the namespace is empty, or has a character that XML does not allow`: func() { document.Namespace("p", "") },
		`path "p": XML reserves the namespace`:                                         func() { document.Namespace("p", "http://www.w3.org/XML/1998/namespace") },
	} {
		if mistake := recovered(misuse); mistake == nil || mistake.Error() != want {
			t.Errorf("%v, not %s", mistake, want)
		} else if why := string(words.Of(mistake)); why == "" || !strings.HasSuffix(want, why) {
			t.Errorf("%s: the log has %q", want, why)
		}
	}
	mistake := recovered(func() { document.Find("b[@k='1']x") })
	if why := words.Of(mistake); why != `at character 10: "/" expected` {
		t.Errorf("the log has %q", why)
	}
	document.Namespace("qemu", "http://libvirt.org/schemas/domain/qemu/1.0") // what it is already
	if got := written(t, document); got != "<a/>" {
		t.Errorf("the document is %q", got)
	}
}

// TestAPrefixKeepsItsMeaning declares prefixes where others use them for something else.
func TestAPrefixKeepsItsMeaning(t *testing.T) {
	const other = `xmlns:qemu="urn:other"`
	const ours = `"http://libvirt.org/schemas/domain/qemu/1.0"`
	for name, test := range map[string]struct {
		before, after string
		edit          func(document *xmledit.Document)
	}{
		"below the element": {
			`<a ` + other + `><b><qemu:c/></b></a>`,
			`<a ` + other + `><b xmlns:qemu1=` + ours + ` qemu1:k="1"><qemu:c/></b></a>`,
			func(d *xmledit.Document) { d.Find("b").SetAttr("qemu:k", "1") },
		},
		"in its own tag": {
			`<a ` + other + `/>`,
			`<a ` + other + ` xmlns:qemu1=` + ours + ` qemu1:k="1"/>`,
			func(d *xmledit.Document) { d.Root().SetAttr("qemu:k", "1"); d.Root().SetAttr("qemu:k", "1") },
		},
		"of a new element": {
			`<a ` + other + `/>`,
			`<a ` + other + `><qemu:b xmlns:qemu1=` + ours + ` qemu1:k="1"></qemu:b></a>`,
			func(d *xmledit.Document) { d.Namespace("o", "urn:other"); d.Append("o:b[@qemu:k='1']") },
		},
		"where the number is taken as well": {
			`<a ` + other + ` xmlns:qemu1="urn:other"/>`,
			`<a ` + other + ` xmlns:qemu1="urn:other" xmlns:qemu3=` + ours + ` qemu3:k="1"/>`,
			func(d *xmledit.Document) { d.Namespace("qemu2", "urn:x"); d.Root().SetAttr("qemu:k", "1") },
		},
		"of an element that was removed": {
			`<a><b/></a>`, `<a></a>`,
			func(d *xmledit.Document) { b := d.Find("b"); b.Remove(); b.Append("qemu:c"); b.InsertBefore("qemu:d") },
		},
	} {
		document := parsed(t, test.before)
		test.edit(document)
		if got := written(t, document); got != test.after {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, test.after)
		}
	}
}

// TestRemovingWhatIsBetweenTextsKeepsThemValid joins texts to "]]>", which XML does not allow.
func TestRemovingWhatIsBetweenTextsKeepsThemValid(t *testing.T) {
	for before, after := range map[string]string{
		"<a>]]<b/>></a>":           "<a>]]&gt;</a>",
		"<a>]<b/>]></a>":           "<a>]]&gt;</a>",
		"<a>]<b/>]<b/>></a>":       "<a>]]&gt;</a>",
		"<a>x]]]<b/>>y</a>":        "<a>x]]]&gt;y</a>",
		"<a>]x<b/>]></a>":          "<a>]x]></a>",
		"<a>]<!--]--><b/>]></a>":   "<a>]<!--]-->]></a>",
		"<a>]<c/>]<b/>></a>":       "<a>]<c/>]></a>",
		"<a>]] <b/>></a>":          "<a>]] ></a>",
		"<a>x<!--c--> \n <b/></a>": "<a>x<!--c--></a>",
		"<a>x <b/> <b/>\n<b/></a>": "<a>x  \n</a>",
	} {
		document := parsed(t, before)
		for _, b := range document.FindAll("b") {
			b.Remove()
		}
		if got := written(t, document); got != after {
			t.Errorf("%s: got %s, not %s", before, got, after)
		}
		parsed(t, written(t, document))
	}
}

func TestHookLeavesErrorsToTheAuthor(t *testing.T) {
	refusal := hook.Refusef("no")
	refuses := xmledit.Hook(func(_ context.Context, _ hook.VMI, doc *xmledit.Document) error {
		doc.Ensure("b")
		return refusal
	})
	if out, err := refuses(context.Background(), nil, []byte("<a/>")); out != nil || err != refusal {
		t.Errorf("%s, %v", out, err)
	}
	breaks := xmledit.Hook(func(_ context.Context, _ hook.VMI, doc *xmledit.Document) error {
		doc.Root().SetText("\x00")
		return nil
	})
	if out, err := breaks(context.Background(), nil, []byte("<a/>")); out != nil || err == nil || errors.Is(err, hook.ErrInvalidParams) {
		t.Errorf("%s, %v", out, err)
	}
	if xmledit.Hook(nil) != nil {
		t.Error("a nil function can be registered")
	}
}

// TestLargeDocumentsAreEditedInTime fails by the timeout of tests if an operation is quadratic.
func TestLargeDocumentsAreEditedInTime(t *testing.T) {
	const many = 20_000
	document := parsed(t, "<domain>\n  <devices>"+strings.Repeat("\n    <disk><alias name='a'/></disk><!-- c -->", many)+"\n  </devices>\n</domain>")
	devices := document.Find("devices")
	for range many {
		devices.Append("disk[@device='disk']").Ensure("alias[@name='b']").SetText("t")
	}
	for range 100 {
		if document.Find("devices/disk/alias[@name='c']") != nil || len(document.FindAll("devices/disk[@device='disk']")) != many {
			t.Fatal("wrong disks")
		}
	}
	disks := document.FindAll("devices/disk")
	slices.Reverse(disks)
	for _, disk := range disks {
		disk.Remove()
	}
	want := "<domain>\n  <devices>" + strings.Repeat("<!-- c -->", many) + "\n  </devices>\n</domain>"
	if got := written(t, document); got != want {
		t.Errorf("%d bytes, not %d", len(got), len(want))
	}
}

func ExampleElement_Ensure() {
	document, err := xmledit.Parse([]byte("<domain>\n  <os>\n    <type>hvm</type>\n  </os>\n</domain>\n"))
	if err != nil {
		panic(err)
	}
	document.Ensure("os/smbios").SetAttr("mode", "sysinfo")
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

func parsed(t testing.TB, text string) *xmledit.Document {
	t.Helper()
	document, err := xmledit.Parse([]byte(text))
	if err != nil {
		t.Fatalf("%.200q: %v", text, err)
	}
	return document
}

func written(t testing.TB, document *xmledit.Document) string {
	t.Helper()
	text, err := document.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
