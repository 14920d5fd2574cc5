"""Edits of XML documents. What all SDKs do alike is in sdk/vectors/xml.json."""

import gc
import json
import os
import random
import subprocess
import sys
import unittest
import weakref
from concurrent.futures import ThreadPoolExecutor
from xml.parsers import expat

import edits
from support import LIMIT, ROOT, SDK

sys.path.insert(0, str(SDK))
import kubevirt_xml
from kubevirt_xml import MAX_DEPTH, PathError, XmlError, parse

# A document in a form that no serializer would write.
ODD = (
    "\ufeff<?xml version='1.0'  encoding=\"UTF-8\"?>\r\n<!-- head -->\n"
    "<domain  type = 'kvm'\n\txmlns:qemu=\"http://libvirt.org/schemas/domain/qemu/1.0\" >\r\n"
    "  <name>a &amp; b &#x20AC;</name><!-- in --><empty /><also></also >\n"
    "  <metadata><kubevirt xmlns='http://kubevirt.io'><uid/></kubevirt></metadata>\n"
    "  <text><![CDATA[<x>]]> &lt;y&gt;\r\n</text><?pi data?>\n"
    "</domain >\n<!-- tail -->\n"
)

# A document with everything that an edit must keep.
DOMAIN = (
    "<?xml version='1.0'?>\n<!-- <os> -->\n<domain type='kvm' xmlns:q=\"a>b\" >\r\n"
    "\t<a:os xmlns:a='urn:a'/>\n\t<os   >\n\t\t<type a = 'x>y'>h&#118;m</type>\n\t</os>\n"
    "\t<empty/><wide b='' />\n"
    "\t<list><e n='1'>&lt;</e><e n=\"2\">two<!-- c --></e></list>\n</domain>\n<!-- end -->\n"
)


def sample():
    """Returns a domain as KubeVirt writes it."""
    return (ROOT / "crates/hookctl/src/samples/domain.xml").read_text(encoding="utf-8")


def set_text(element, text):
    element.text = text


class Vectors(unittest.TestCase):
    def test_edits_are_as_the_vectors_say(self):
        cases = json.loads((ROOT / "sdk/vectors/xml.json").read_text(encoding="utf-8"))["cases"]
        self.assertGreater(len(cases), 180)
        for case in cases:
            with self.subTest(case["about"]):
                if case.get("error") == "document":
                    with self.assertRaises(XmlError) as refused:
                        edits.play(case)
                    self.assertIn(case.get("says", ""), str(refused.exception))
                    continue
                before, expected = case["document"], case["expect"]
                document = str(edits.play(case))
                self.assertEqual(
                    document, edits.text_of(before if expected == "unchanged" else expected)
                )


class Reading(unittest.TestCase):
    def test_unchanged_documents_stay_as_they_are(self):
        libvirt = ROOT / "tests/fixtures/domains/libvirt.xml"
        with open(libvirt, encoding="utf-8", newline="") as file:
            documents = [file.read(), sample(), ODD, DOMAIN, "<a/>", "<a></a>\n", " <a/>"]
        for text in documents:
            with self.subTest(text[:40]):
                document = parse(text)
                self.assertEqual(str(document), text)
                for element in document.find_all("*/*/*"):
                    self.assertEqual((element.find("none"), element.get("none")), (None, None))
                    self.assertIsInstance(element.text, str)
                self.assertEqual(str(document), text)
                self.assertEqual(str(parse(text.encode())), text)

    def test_bytes_are_utf_8(self):
        with self.assertRaisesRegex(XmlError, "^the document is not UTF-8$"):
            parse(b"<a>\xff</a>")

    def test_an_element_is_the_same_wherever_it_is_found(self):
        document = parse("<a><b><c/></b><b/></a>")
        self.assertIs(document.find("b/c"), document.find_all("*")[0].find("c"))
        self.assertIs(document.find("b/c").parent, document.find("b"))
        document.append("b")
        self.assertIs(document.find("b/c").parent.parent, document.root)
        self.assertIsNone(document.root.parent)

    def test_a_missing_attribute_may_have_a_default(self):
        self.assertEqual(parse("<a b=''/>").root.get("b", "x"), "")
        self.assertEqual(parse("<a/>").root.get("b", "x"), "x")

    def test_attributes_are_a_copy(self):
        root = parse("<a b='1' xmlns:p='urn:p' p:c='2'/>").root
        root.attributes["b"] = "3"
        self.assertEqual(root.attributes, {"b": "1", "p:c": "2"})

    def test_a_document_is_freed_when_nobody_uses_it(self):
        gc.disable()
        try:
            document = parse(sample())
            element = weakref.ref(document.ensure("os/smbios"))
            document.find("devices").append("disk").append("source")
            self.assertIsNotNone(element())
            del document
            self.assertIsNone(element())
        finally:
            gc.enable()

    def test_an_element_outlives_its_document(self):
        source = parse("<a><b><c d='1'/></b></a>").find("b/c")
        self.assertEqual((source.get("d"), source.parent), ("1", None))
        source.remove()
        source.insert_before("e")
        source.ensure("f").set("g", "1")
        self.assertEqual(source.find("f").get("g"), "1")


class Refusals(unittest.TestCase):
    def test_broken_documents_are_refused_with_a_position(self):
        for text, message in (
            ("", "line 1, column 1: no element found"),
            ("<!-- secret -->", "line 1, column 16: no element found"),
            ("<a>\n<b></a>", "line 2, column 6: mismatched tag"),
            ("<a><b>", "line 1, column 7: no element found"),
            ("<a></a></a>", "line 1, column 9: not well-formed (invalid token)"),
            ("<a/><b/>", "line 1, column 5: junk after document element"),
            ("<a/>secret", "line 1, column 5: junk after document element"),
            ("secret<a/>", "line 1, column 7: not well-formed (invalid token)"),
            ("<a/>\ufeff", "line 1, column 5: not well-formed (invalid token)"),
            ("<!DOCTYPE secret><a/>", "line 1, column 1: a document type"),
            ("<?xml version='1.0'?>\n<!--<a>--> <!DOCTYPE secret [<!ENTITY b 'c'>]><a/>",
             "line 2, column 12: a document type"),
            (" <?xml version='1.0'?><a/>",
             "line 1, column 2: XML or text declaration not at start of entity"),
            ("<a>&secret;</a>", "line 1, column 4: undefined entity"),
            ("<a b=secret/>", "line 1, column 6: not well-formed (invalid token)"),
            ("<a b='<secret'/>", "line 1, column 7: not well-formed (invalid token)"),
            ("<a b='1' b='2'/>", "line 1, column 10: duplicate attribute"),
            ("<a>\x01</a>", "line 1, column 4: not well-formed (invalid token)"),
            ("<a>\0</a>", "line 1, column 4: not well-formed (invalid token)"),
            ("<a>\n€\ud800</a>", "line 2, column 2: a lone surrogate"),
            ("<a><!-- secret", "line 1, column 4: unclosed token"),
            ("<a><![CDATA[secret]]</a>", "line 1, column 25: unclosed CDATA section"),
            ("<a/><?secret >", "line 1, column 5: unclosed token"),
            ("<?xml encoding='latin1'?><a>", "line 1, column 7: XML declaration not well-formed"),
            ("<" * 100_000, "line 1, column 2: not well-formed (invalid token)"),
            ("<!" * 100_000, "line 1, column 3: not well-formed (invalid token)"),
        ):  # fmt: skip
            with self.subTest(text[:40]):
                with self.assertRaises(XmlError) as refused:
                    parse(text)
                self.assertEqual(str(refused.exception), message)
                self.assertIsInstance(refused.exception, ValueError)
                # The cause is not shown, because it may quote the document.
                self.assertIsNone(refused.exception.__cause__)
                if refused.exception.__context__:
                    self.assertTrue(refused.exception.__suppress_context__)

    def test_elements_may_be_nested_as_deeply_as_the_protocol_says(self):
        page = (ROOT / "protocol.md").read_text()
        self.assertIn(f"| elements of a domain | nested up to {MAX_DEPTH} deep |", page)
        text = "<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH
        document = parse(text)
        element = document.find("/".join(["a"] * (MAX_DEPTH - 1)))
        fault = f"elements nested deeper than {MAX_DEPTH}$"
        for add in (
            element.append,
            element.ensure,
            lambda it: document.ensure(f"b/{'a/' * 254}{it}"),
        ):
            with self.assertRaisesRegex(ValueError, "^" + fault):
                add("a")
        self.assertEqual(str(document), text)
        deep = "<a>" * MAX_DEPTH + "<b/>" + "</a>" * MAX_DEPTH
        for wrong in (
            deep,
            deep + "<!-- -->",
            deep.replace("<b/>", "<b c='/>'/>"),
            f"<a>{'<b>/></b>' * 300}{'<a>' * 255}{'</a>' * 255}</a>",
            f"<a>{'<b/>' * 300}{'<a>' * 255}{'</a>' * 255}</a>",
            f"<a>{'x' * 100_000}{'<a>' * 255}{'</a>' * 255}</a>",
            f"<a>{'<b>x</b>' * 10_000}{'<a>' * 255}{'</a>' * 255}</a>",
        ):
            with self.subTest(wrong[:40]), self.assertRaisesRegex(XmlError, fault):
                parse(wrong)
        for right in ("<b/>", "<b>/></b>", "<b c='/>'/>", "<b c='>'><c/></b>", "<b></b>"):
            text = f"<a>{right * 1000}{'<a>' * 254}{'</a>' * 254}</a>"
            self.assertEqual(str(parse(text)), text)

    def test_entities_are_not_expanded(self):
        entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 20))
        with self.assertRaisesRegex(XmlError, "a document type"):
            parse(f"<!DOCTYPE a [<!ENTITY e0 'ha'>{entities}]><a b='&e19;'>&e19;</a>")

    def test_a_word_in_a_comment_is_no_document_type(self):
        text = "<!--<!DOCTYPE a>--><a><![CDATA[<!DOCTYPE a>]]><?p <!DOCTYPE a>?></a>"
        self.assertEqual(str(parse(text)), text)

    def test_undeclared_prefixes_are_all_that_may_be_wrong_with_names(self):
        for right in ("<a><p:b p:c=''/></a>", "<p:a/>", "<a xmlns:p='urn:p'><q:b p:c=''/></a>"):
            self.assertEqual(str(parse(right)), right)
        for wrong, place in (
            ("<a>\n<q:b/><p:c:d/></a>", "line 2, column 11"),
            (
                "<a><q:b/>\n <b xmlns:p='urn:x' xmlns:r='urn:x' p:c='' r:c=''/></a>",
                "line 2, column 2",
            ),
            ("<a><q:b/><b xmlns:p=''/></a>", "line 1, column 10"),
        ):
            with self.subTest(wrong), self.assertRaisesRegex(XmlError, f"^{place}: "):
                parse(wrong)

    def test_what_xml_cannot_hold_is_an_error_at_once(self):
        before = "<a b='1'><c/></a>"
        for change in (
            lambda root: set_text(root.ensure("c"), "secret\x07"),
            lambda root: set_text(root, "secret\ud800"),
            lambda root: root.set("b", "secret\0"),
            lambda root: root.ensure("d/e[@f=?]", "secret\x1f"),
            lambda root: root.find("c").insert_before("d[@f=?]", "secret\x1f"),
        ):
            document = parse(before)
            with self.assertRaises(ValueError) as refused:
                change(document.root)
            self.assertNotIsInstance(refused.exception, PathError)
            self.assertNotIn("secret", str(refused.exception))
            self.assertEqual(str(document), before)

    def test_mistakes_of_the_program_say_what_to_do(self):
        root = parse("<a><b/></a>").root
        for mistake, kind, says in (
            (lambda: root.set("b", 4), TypeError, "a value must be a str, not int"),
            (lambda: root.find("b[@c=?]", 4), TypeError, "the value of c must be a str, not int"),
            (lambda: set_text(root, b""), TypeError, "a value must be a str, not bytes"),
            (lambda: root.find("disk[@type=file]"), PathError,
             'path "disk[@type=file]": "f" at character 12: a value in quotes or "?" expected'),
            (lambda: root.find("b/"), PathError, 'path "b/": the end, at character 3: a name expected'),
            (lambda: root.find("app:b"), PathError,
             'path "app:b": unknown prefix "app"; doc.namespace adds prefixes'),
            (lambda: root.get("b c"), PathError,
             'name "b c": " " at character 2: it is not part of a name'),
            (lambda: root.append("b[@c='1'][@c='2']"), PathError,
             'path "b[@c=\'1\'][@c=\'2\']": a new element cannot have "c" twice'),
            (lambda: parse("<a/>").namespace("xml", "urn:x"), PathError,
             'prefix "xml": it stands for another namespace'),
            (lambda: parse("<a/>").namespace("x", ""), PathError,
             'prefix "x": its namespace is empty, or XML cannot hold it'),
        ):  # fmt: skip
            with self.subTest(says):
                with self.assertRaises(kind) as raised:
                    mistake()
                self.assertEqual(str(raised.exception), says)

    def test_what_xml_can_hold_is_kept(self):
        text = "\t\n\r\x7f\x85\xa0\u2028\u200b\ufeff\ufffd \U0010ffff]]>&amp;<'\""
        document = parse("<a></a>")
        new = document.append("b[@_-.1=?]", text)
        new.text = text
        again = parse(str(document)).find("b")
        self.assertEqual((again.get("_-.1"), again.text), (text, text))


class Sizes(unittest.TestCase):
    """Large inputs: with quadratic cost these tests would take hours."""

    def test_many_siblings(self):
        text = "<a>" + "\n <b c='1'>\n  <d/>\n </b>" * 50_000 + "\n</a>"
        document = parse(text)
        found = document.find_all("b")
        self.assertEqual(len(found), 50_000)
        self.assertEqual(str(document), text)
        found[-1].find("d").set("e", "f")
        for _ in range(10_000):
            document.append("new")
        end = "<d/>\n </b>\n</a>"
        new = '<d e="f"/>\n </b>' + "\n <new></new>" * 10_000 + "\n</a>"
        self.assertEqual(str(document), text[: -len(end)] + new)

    def test_an_element_in_each_of_many(self):
        document = parse("<a>" + "\n <b/>" * 20_000 + "\n</a>")
        for element in document.find_all("b"):
            element.append("c")
        expected = "<a>" + "\n <b>\n  <c></c>\n </b>" * 20_000 + "\n</a>"
        self.assertEqual(str(document), expected)

    def test_deep_nesting(self):
        inner = "<b>c</b>" * 20_000
        text = "<a>" * 250 + inner + "</a>" * 250
        document = parse(text)
        element = document.find("/".join(["a"] * 249))
        self.assertEqual(len(element.find_all("b")), 20_000)
        element.set("d", "e")
        self.assertEqual(str(document), "<a>" * 249 + '<a d="e">' + inner + "</a>" * 250)
        with self.assertRaises(XmlError):
            parse("<a>" * 500_000)

    def test_many_children_are_removed_one_by_one(self):
        root = parse("<a>" + "\n<b c='1'/>" * 10_000 + "</a>").root
        count = 0
        while child := root.find("b[@c='1']"):
            child.remove()
            count += 1
        self.assertEqual(count, 10_000)

    def test_threads_may_read_one_document(self):
        document = parse("<a>" + "<b><c/></b>" * 5_000 + "</a>")
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(4) as threads:
                found = list(threads.map(lambda _: document.find_all("b/c"), range(4)))
        finally:
            sys.setswitchinterval(before)
        self.assertEqual(len(found[0]), 5_000)
        self.assertTrue(all(it == found[0] for it in found), "each is there once")

    def test_many_attributes(self):
        attributes = "".join(f" a{n}='>'" for n in range(50_000))
        document = parse(f"<a{attributes}/>")
        document.root.set("a49999", "x")
        self.assertEqual(str(document), f"<a{attributes}/>"[:-5] + "'x'/>")

    def test_many_attributes_are_edited(self):
        many = 50_000
        document = parse("<domain>\n <a   k0 = '0'\n/></domain>")
        element = document.find("a")
        for n in range(many):
            element.set(f"k{n}", "0")
            element.set(f"qemu:k{n}", "1")
        for n in range(many):
            element.set(f"k{n}", f"{n}'")
            self.assertEqual(element.get(f"qemu:k{n}"), "1")
        texts = ["   k0 = '0&apos;'", *(f' k{n}="{n}\'"' for n in range(1, many))]
        both = "".join(f'{text} qemu:k{n}="1"' for n, text in enumerate(texts))
        start = f'<domain xmlns:qemu="{kubevirt_xml.NAMESPACES["qemu"]}">\n <a'
        self.assertEqual(str(document), f"{start}{both}\n/></domain>")
        for n in range(many):
            element.remove_attribute(f"qemu:k{n}")
            if n % 3:
                element.remove_attribute(f"k{n}")
        element.set("k1", "")
        element.append("b")
        left = "".join(texts[::3])
        self.assertEqual(str(document), f'{start}{left} k1="">\n  <b></b>\n </a></domain>')
        self.assertEqual(len(element.attributes), (many + 2) // 3 + 1)

    def test_an_element_before_each_of_many(self):
        document = parse("<a>" + "\n <b/><!-- c -->" * 20_000 + "\n</a>")
        found = document.find_all("b")
        random.Random(1).shuffle(found)
        for element in found:
            element.insert_before("c")
        expected = "<a>" + "\n <c></c>\n <b/><!-- c -->" * 20_000 + "\n</a>"
        self.assertEqual(str(document), expected)
        for element in found:
            element.remove()
        expected = "<a>" + "\n <c></c><!-- c -->" * 20_000 + "\n</a>"
        self.assertEqual(str(document), expected)

    def test_a_long_row_of_siblings_is_freed(self):
        root = parse("<a>" + "<b/>" * 500_000 + "</a>").root
        root.find("b").remove()  # parses all
        del root

    def test_much_markup_in_comments(self):
        text = "<a><!--" + "<b>" * 200_000 + "-->" + "<!--<-->" * 100_000 + "</a>"
        document = parse(text)
        document.append("c")
        self.assertEqual(str(document), text[:-4] + "<c></c></a>")

    def test_many_colons(self):
        text = "<a>" + "<b>:::::</b>" * 500 + "<c xmlns:p='urn:p' xmlns:q='urn:q'><q:d/></c></a>"
        document = parse(text)
        document.namespace("mine", "urn:q")
        self.assertEqual(len(document.find_all("c/mine:d")), 1)


class Parsers(unittest.TestCase):
    """Random documents, against the parser of the standard library."""

    def test_only_what_is_well_formed_is_taken(self):
        chance = random.Random(1)
        taken = 0
        for _ in range(4000):
            text = mutated(chance, generated(chance))
            types = []
            parser = expat.ParserCreate("utf-8", "")
            parser.StartDoctypeDeclHandler = lambda *_, types=types: types.append(1)
            try:
                parser.Parse(text, True)
                well_formed = True
            except expat.ExpatError as error:
                if error.code == kubevirt_xml.UNBOUND_PREFIX:
                    continue
                well_formed = False
            declaration = text.lstrip("\ufeff").partition("?>")[0]
            if declaration.startswith("<?xml ") and "'1.0'" not in declaration:
                well_formed = False  # expat takes any version
            if well_formed and not types:
                taken += 1
                document = parse(text)
                self.assertEqual(str(document), text)
                document.root.set("added", "<&>\"'\n")
                document.append("added").text = "<&>]]>\r\n"
                again = parse(str(document)).root
                self.assertEqual(again.get("added"), "<&>\"'\n")
                self.assertEqual(again.find_all("added")[-1].text, "<&>]]>\r\n")
            else:
                with self.assertRaises(XmlError):
                    parse(text)
        self.assertTrue(1000 < taken < 3000, taken)


class Module(unittest.TestCase):
    def test_it_needs_no_other_file_and_loads_little(self):
        program = "import sys; before = set(sys.modules); import kubevirt_xml; print(*sorted(set(sys.modules) - before))"
        ran = subprocess.run([sys.executable, "-ISc", f"import sys; sys.path.append({str(SDK)!r}); {program}"],
                             capture_output=True, timeout=LIMIT, text=True, env=os.environ, check=True)  # fmt: skip
        loaded = {
            name for name in ran.stdout.split() if not name.startswith(("pyexpat", "xml.parsers"))
        }
        self.assertEqual(loaded, {"__future__", "kubevirt_xml", "xml"})

    def test_names_are_public(self):
        names = ["Document", "Element", "PathError", "XmlError", "parse"]
        self.assertEqual(kubevirt_xml.__all__, names)


# ---- random documents ----

NAMES = ("a", "b", "ab", "p:b", "ä")
TEXTS = ("", "\n  ", " ", "t", " > ", "&lt;", "&#65;\n", "\r\n", "]] >", "€", "/>", '="')
VALUES = ("", "1", "2", ">", "/>", " a\n", "&quot;&amp;", "&#10;", "=", "ß")
OTHERS = ("<!-- <b> -->", "<!-->-->", "<!---->", "<![CDATA[<b>]]>", "<![CDATA[ ]]>",
          "<?p <b>?>", "<?p?>", "<!--\n\"'>-->")  # fmt: skip


def generated(chance, depth=0):
    """Returns a well-formed document with unusual but valid syntax."""
    name = chance.choice(NAMES)
    chosen = chance.sample(("a", "b", "p:a", "c"), chance.choice((0, 0, 1, 1, 2, 4)))
    attributes = [f"{it}{chance.choice(('=', ' = '))}{quoted(chance)}" for it in chosen]
    if depth == 0:
        attributes.append("xmlns:p='urn:p'")
    tag = chance.choice((" ", "\n\t")).join([name, *attributes])
    space = chance.choice(("", "", " ", "\r\n"))
    if depth and chance.random() < 0.2:
        return f"<{tag}{space}/>"
    inside = []
    for _ in range(chance.randrange(6 if depth < 3 else 2)):
        inside.append(chance.choice(TEXTS))
        kind = chance.random()
        inside.append(
            generated(chance, depth + 1)
            if kind < 0.6
            else chance.choice(OTHERS)
            if kind < 0.8
            else ""
        )
    inside.append(chance.choice(TEXTS))
    text = f"<{tag}{space}>{''.join(inside)}</{name}{chance.choice(('', ' '))}>"
    if depth:
        return text
    before = chance.choice(("", "", "\ufeff", "<?xml version='1.0'?>", "<!-- <a> -->\n", " "))
    return before + text + chance.choice(("", "\n", "<!--<a/>-->", "<?p >?>\n"))


def quoted(chance):
    value = chance.choice(VALUES)
    return chance.choice((f'"{value}"', f"'{value}'"))


def mutated(chance, text):
    """Returns the document, or one with a fault, or one with a change that may be a fault."""
    for _ in range(chance.choice((0, 1, 1, 2))):
        at = chance.randrange(len(text) + 1)
        new = chance.choice(("", "", "<", ">", "/", "&", "'", '"', "=", "!", "?", "-", "a", " ", "\x01", "]]>", "-->",
                             "<!--", "<![CDATA[", "<?", "<!DOCTYPE a>", "<a>", "</a>", "<a/>"))  # fmt: skip
        text = text[:at] + new + text[at + chance.randrange(2) :]
    return text


if __name__ == "__main__":
    unittest.main()
