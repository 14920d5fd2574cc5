"""Edits of XML documents, with the same documents and results as in the SDKs for Go and Rust."""

import os
import random
import subprocess
import sys
import unittest
from concurrent.futures import ThreadPoolExecutor
from xml.dom import Node, minidom
from xml.etree import ElementTree
from xml.parsers import expat

from support import LIMIT, ROOT, SDK

sys.path.insert(0, str(SDK))
import kubevirt_xml
from kubevirt_xml import MAX_DEPTH, XmlError, parse

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


def edited(text, change):
    document = parse(text)
    change(document.root)
    return str(document)


def set_text(element, text):
    element.text = text


class Reading(unittest.TestCase):
    def test_unchanged_documents_stay_as_they_are(self):
        libvirt = ROOT / "tests/fixtures/domains/libvirt.xml"
        with open(libvirt, encoding="utf-8", newline="") as file:
            documents = [file.read(), sample(), ODD, DOMAIN, "<a/>", "<a></a>\n", " <a/>"]
        for text in documents:
            with self.subTest(text[:40]):
                self.assertEqual(str(parse(text)), text)

    def test_looking_changes_nothing(self):
        for text in (ODD, DOMAIN, sample()):
            document = parse(text)
            for element in everything(document.root, minidom.parseString(text.encode())):
                self.assertIsNotNone(element.text)
            self.assertEqual(str(document), text)

    def test_what_is_read_is_what_the_document_says(self):
        root = parse(ODD).root
        self.assertEqual(root.name, "domain")
        self.assertEqual(root.child("name").text, "a & b €")
        self.assertEqual(root.child("text").text, "<x> <y>\n")
        self.assertEqual(root.get("xmlns:qemu"), "http://libvirt.org/schemas/domain/qemu/1.0")
        self.assertEqual(root.get("type"), "kvm")
        self.assertIsNone(root.get("no"))
        self.assertIsNone(root.child("no"))
        self.assertEqual(root.children("no"), [])
        self.assertEqual(root.child("metadata").child("kubevirt").child("uid").name, "uid")
        self.assertEqual(parse("<a b='1\n2&#10;&quot;>' c=\"'\"/>").root.get("b"), '1 2\n">')

    def test_names_count_as_they_are_written(self):
        root = parse("<a><p:b xmlns:p='urn:p'/><bc/><b c='1' d='2'/><b c='1'/></a>").root
        self.assertEqual(root.child("p:b").name, "p:b")
        self.assertIsNone(root.child("b").get("xmlns:p"))
        self.assertIs(root.child("p:b", **{"xmlns:p": "urn:p"}), root.child("p:b"))
        self.assertEqual(len(root.children("b")), 2)
        self.assertEqual(root.children("b", c="1", d="2"), [root.child("b")])
        self.assertIsNone(root.child("b", c="2"))

    def test_children_of_any_name(self):
        root = parse("<a>t<b c='1'/><!-- c --><d><b/></d><b/></a>").root
        for _ in range(2):
            self.assertEqual([it.name for it in root.children()], ["b", "d", "b"])
            self.assertEqual(root.children(c="1"), [root.child("b")])
            self.assertIsNotNone(root.text)  # parses all of the content

    def test_a_comment_is_no_element(self):
        text = "<a><!--b--><?b b?><![CDATA[<b/>]]><!--<b>--></a>"
        root = parse(text).root
        for name in ("b", "!--b--", "!--b--!--b", "?b", "", "/a"):
            self.assertIsNone(root.child(name), name)
        self.assertEqual(root.text, "<b/>")
        self.assertEqual(edited(text, lambda root: root.append("c")), text[:-4] + "<c></c></a>")

    def test_markup_between_quotes_and_in_comments_is_text(self):
        for text in (
            "<a b='/>' c=\"'>\">/></a>",
            "<a><b c='>'/>></a>",
            "<a>\n<!-- > <b> -->\n<b> -> </b><!----></a>",
            "<!-->--><a><!-->-->></a><!--->-->",
            "<a><![CDATA[]]><![CDATA[]>]]]>]]&gt;<![CDATA[<a>]]></a>",
            "<?p?><a><?p <b> >?>></a><?p ??>",
            '<a =\n"\'"/>'.replace("a ", "a b "),
        ):
            with self.subTest(text):
                expected = minidom.parseString(text)
                document = parse(text)
                for _ in everything(document.root, expected):
                    pass
                self.assertEqual(str(document), text)
                self.assertEqual(document.root.text, own_text(expected.documentElement))

    def test_the_declared_encoding_does_not_matter(self):
        for encoding in ("ISO-8859-1", "utf-16", "nonsense"):
            text = f"<?xml version='1.0' encoding='{encoding}'?><a b='ä'>€😀</a>"
            self.assertEqual(str(parse(text)), text)
            self.assertEqual(parse(text).root.text, "€😀")
            self.assertEqual(
                edited(text, lambda root: root.set("b", "ö")), text.replace("'ä'", '"ö"')
            )


class Changing(unittest.TestCase):
    def test_changes_touch_nothing_else(self):
        for name, before, after, change in (
            ("a text", "<a>\n <b x='1'>old</b>\n</a>", "<a>\n <b x='1'>n &lt; \"w\"</b>\n</a>",
             lambda root: set_text(root.child("b"), 'n < "w"')),
            ("the text that is there", "<a><b><![CDATA[&]]></b></a>", "<a><b><![CDATA[&]]></b></a>",
             lambda root: set_text(root.child("b"), "&")),
            ("no text, as before", "<a><b/></a>", "<a><b/></a>",
             lambda root: set_text(root.child("b"), "")),
            ("a text in place of elements", "<a><b/></a>", "<a>t</a>",
             lambda root: set_text(root, "t")),
            ("a text in place of a comment", "<a>t<!-- t --></a>", "<a>t</a>",
             lambda root: set_text(root, "t")),
            ("a text in place of an instruction", "<a>t<?t t?></a>", "<a>t</a>",
             lambda root: set_text(root, "t")),
            ("the text of an empty element", "<a><b c='d' /></a>", "<a><b c='d'>t</b></a>",
             lambda root: set_text(root.child("b"), "t")),
            ("an attribute's value", "<a  one='>' two = \"2\" three='3'/>",
             "<a  one='>' two = \"&quot;&#10;\" three='3'/>", lambda root: root.set("two", '"\n')),
            ("a value behind white space", "<a b\t=\r\n'>'\nc\n=\t\"/>\"/>", "<a b\t=\r\n'>'\nc\n=\t\"1\"/>",
             lambda root: root.set("c", "1")),
            ("the value that is there", "<a one='&#49;'/>", "<a one='&#49;'/>",
             lambda root: root.set("one", "1")),
            ("another attribute", "<a one='1' ></a>", "<a one='1' p:two=\"2\" ></a>",
             lambda root: (root.set("p:two", "2"), root.set("p:two", "2"))),
            ("an attribute of an empty element", "<a />", '<a b="c" />',
             lambda root: root.set("b", "c")),
            ("a lone element behind an instruction", "<?b?><a c='/>'/>", "<?b?><a c='/>'><d></d></a>",
             lambda root: root.append("d")),
            ("elements before markup in a comment", "<a b='>'/><!-- </a> -->",
             "<a b='>'><c></c></a><!-- </a> -->", lambda root: root.append("c")),
            ("a new element on a separate line", "<a>\n\t<b/>\n</a>",
             '<a>\n\t<b/>\n\t<c d="e"></c>\n</a>', lambda root: root.ensure("c", d="e")),
            ("two new elements", "<a>\n\t<b/>\n</a>", "<a>\n\t<b/>\n\t<c></c>\n\t<d></d>\n</a>",
             lambda root: (root.append("c"), root.append("d"))),
            ("a new element on the same line", "<a><b/></a>", "<a><b/><c></c></a>",
             lambda root: root.ensure("c")),
            ("a new element in an empty one", "<a><b/></a>", "<a><b><c><d></d></c></b></a>",
             lambda root: root.ensure("b").ensure("c").ensure("d")),
            ("a new element behind a comment", "<a>\n <!-- c --><b/></a>",
             "<a>\n <!-- c --><b/><c></c></a>", lambda root: root.append("c")),
            ("an element that is there", "<a><b c='d'/><b c='e'/></a>",
             "<a><b c='d'/><b c='e' f=\"g\"/></a>", lambda root: root.ensure("b", c="e").set("f", "g")),
            ("an element less", "<a>\n\t<b/>\n\t<c/>\n</a>", "<a>\n\t<c/>\n</a>",
             lambda root: root.remove(root.child("b"))),
            ("every element less", "<a>\n\t<b/>\n\t<c/><b/>\n</a>", "<a>\n\t<c/>\n</a>",
             lambda root: [root.remove(b) for b in root.children("b")]),
            ("an element that is not there", "<a>x<b/></a>", "<a>x<b/></a>",
             lambda root: (root.remove(None), root.remove(root), root.remove("x"))),
            ("what is named like a parameter", "<a/>", '<a><b name="1" self="2"></b></a>',
             lambda root: root.ensure("b", name="1", self="2")),
            ("changes at several depths", "<a> <b><c>1</c>2</b>3<d/> </a>",
             '<a> <b x="y"><c>4</c><e></e>2</b>3<d/> </a>',
             lambda root: (set_text(root.child("b").child("c"), "4"), root.child("b").set("x", "y"),
                           root.child("b").append("e"))),
            ("a change inside what is removed", "<a><b><c/></b></a>", "<a></a>",
             lambda root: (root.child("b").child("c").set("d", "e"), root.remove(root.child("b")))),
        ):  # fmt: skip
            with self.subTest(name):
                result = edited(before, change)
                self.assertEqual(result, after)
                if name.startswith("a text"):
                    self.assertEqual(edited(result, change), result)

    def change(self, old, new, change):
        """Asserts that only this part of DOMAIN changes."""
        self.assertEqual(DOMAIN.count(old), 1, old)
        result = edited(DOMAIN, change)
        self.assertEqual(result, DOMAIN.replace(old, new))
        self.assertEqual(edited(result, change), result)

    def test_what_is_right_stays_to_the_byte(self):
        for change in (
            lambda root: root.child("os").child("type").set("a", "x>y"),
            lambda root: set_text(root.child("os").child("type"), "hvm"),
            lambda root: set_text(root.child("list").child("e", n="1"), "<"),
            lambda root: set_text(root.child("empty"), ""),
            lambda root: root.ensure("list").ensure("e", n="2"),
        ):
            self.assertEqual(edited(DOMAIN, change), DOMAIN)

    def test_an_attribute_is_replaced_or_added_in_its_tag(self):
        self.change("'x>y'", '"&quot;&lt;&amp;&gt;\'&#10;"',
                    lambda root: root.ensure("os").ensure("type").set("a", "\"<&>'\n"))  # fmt: skip
        self.change("<os   >", '<os b="1"   >', lambda root: root.ensure("os").set("b", "1"))
        self.change(
            "<wide b='' />", "<wide b='' c=\"\" />", lambda root: root.ensure("wide").set("c", "")
        )
        self.change('"a>b" >', '"a>b" xmlns:n="urn:n" >', lambda root: root.set("xmlns:n", "urn:n"))

    def test_a_text_takes_the_place_of_all_that_is_in_an_element(self):
        self.change("two<!-- c -->", "a &lt; b",
                    lambda root: set_text(root.child("list").child("e", n="2"), "a < b"))  # fmt: skip
        self.change(
            "<empty/>", "<empty>full</empty>", lambda root: set_text(root.child("empty"), "full")
        )
        content = DOMAIN[DOMAIN.index("<list>") + 6 : DOMAIN.index("</list>")]
        self.change(content, "", lambda root: set_text(root.child("list"), ""))

    def test_what_is_missing_is_added_in_line_with_the_rest(self):
        self.change("</type>\n\t</os>", '</type>\n\t\t<smbios mode="sysinfo"></smbios>\n\t</os>',
                    lambda root: root.ensure("os").ensure("smbios").set("mode", "sysinfo"))  # fmt: skip
        new = '<new k="v"><x><e n="&quot;">t</e></x></new>'
        self.change("</list>\n</domain>", f"</list>\n\t{new}\n</domain>",
                    lambda root: set_text(root.ensure("new", k="v").ensure("x").ensure("e", n='"'), "t"))  # fmt: skip
        self.change("<wide b='' />", "<wide b=''><x>t</x></wide>",
                    lambda root: set_text(root.ensure("wide").ensure("x"), "t"))  # fmt: skip
        self.change("</e></list>", '</e><e n="3"></e></list>',
                    lambda root: set_text(root.ensure("list").ensure("e", n="3"), ""))  # fmt: skip

    def test_changes_at_one_place_go_together(self):
        def change(root):
            empty = root.child("empty")
            empty.append("x")
            empty.set("a", "1")
            empty.set("b", "2")
            root.append("y")
            root.append("z")
            system = root.child("os")
            system.remove(system.child("type"))

        result = edited(DOMAIN, change)
        self.assertIn('<empty a="1" b="2"><x></x></empty>', result)
        self.assertIn("</list>\n\t<y></y>\n\t<z></z>\n</domain>", result)
        self.assertIn("<os   >\n\t</os>", result)

    def test_a_document_can_be_written_and_changed_again(self):
        document = parse("<a>\n <b/>\n</a>")
        new = document.root.append("c")
        self.assertEqual(str(document), "<a>\n <b/>\n <c></c>\n</a>")
        new.text = "1"
        document.root.remove(document.root.child("b"))
        self.assertEqual(str(document), "<a>\n <c>1</c>\n</a>")
        new.append("d", e="f").text = "]]>\r\n"
        self.assertEqual(str(document), '<a>\n <c>1<d e="f">]]&gt;&#13;\n</d></c>\n</a>')
        self.assertEqual(parse(str(document)).root.child("c").child("d").text, "]]>\r\n")
        document.root.remove(new)
        self.assertEqual(str(document), "<a>\n</a>")

    def test_an_element_is_the_same_wherever_it_is_found(self):
        root = parse("<a><b c='1'/><b c='2'/></a>").root
        second = root.child("b", c="2")
        self.assertIs(root.children("b")[1], second)
        root.append("b")  # parses all of the content
        self.assertIs(root.children("b")[1], second)


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
        element = document.root
        for _ in range(MAX_DEPTH - 1):
            element = element.child("a")
        self.assertEqual(str(document), text)
        fault = f"elements nested deeper than {MAX_DEPTH}$"
        with self.assertRaisesRegex(ValueError, "^" + fault):
            element.append("a")
        self.assertEqual(str(document), text)
        with self.assertRaises(XmlError):
            parse("<a>" * MAX_DEPTH + "<b/>" + "</a>" * MAX_DEPTH + "<!-- -->")
        # Every search that passes the deep elements fails.
        column = len("<a><b/>") + len("<a>") * (MAX_DEPTH - 1) + 1
        text = f"\n<a><b/>{text}</a>"
        document = parse(text)
        self.assertIsNotNone(document.root.child("b"))
        for _ in range(2):
            with self.assertRaisesRegex(XmlError, f"^line 2, column {column}: {fault}"):
                document.root.child("c")
        self.assertEqual(str(document), text)

    def test_entities_are_not_expanded(self):
        entities = "".join(f"<!ENTITY e{n} '{f'&e{n - 1};' * 10}'>" for n in range(1, 20))
        with self.assertRaisesRegex(XmlError, "a document type"):
            parse(f"<!DOCTYPE a [<!ENTITY e0 'ha'>{entities}]><a b='&e19;'>&e19;</a>")

    def test_a_word_in_a_comment_is_no_document_type(self):
        text = "<!--<!DOCTYPE a>--><a><![CDATA[<!DOCTYPE a>]]><?p <!DOCTYPE a>?></a>"
        self.assertEqual(str(parse(text)), text)

    def test_what_xml_cannot_hold_is_an_error_at_once(self):
        before = "<a b='1'><c/></a>"
        for change in (
            lambda root: set_text(root.ensure("c"), "secret\x07"),
            lambda root: set_text(root, "secret\ufffe"),
            lambda root: set_text(root, "secret\ud800"),
            lambda root: root.set("b", "secret\0"),
            lambda root: root.set("secret", "\udfff"),
            lambda root: root.set("b secret", ""),
            lambda root: root.set("secret='' c", ""),
            lambda root: root.set("", "secret"),
            lambda root: root.append("b><secret"),
            lambda root: root.append("secret/><b"),
            lambda root: root.append("b c='secret'"),
            lambda root: root.append("b "),
            lambda root: root.ensure("1secret"),
            lambda root: root.append("secret", **{"secret>": ""}),
            lambda root: root.append("secret", b="\x1f"),
        ):
            document = parse(before)
            with self.assertRaises(ValueError) as refused:
                change(document.root)
            self.assertNotIn("secret", str(refused.exception))
            self.assertEqual(str(document), before)

    def test_what_xml_can_hold_is_kept(self):
        text = "\t\n\r\x7f\x85\xa0\u2028\u200b\ufeff\ufffd \U0010ffff]]>&amp;<'\""
        for name in ("b", "ä", "q:b", "_-.1", "漢"):
            document = parse("<a xmlns:q='urn:q'></a>")
            new = document.root.append(name, **{name: text})
            new.text = text
            again = parse(str(document)).root.child(name)
            self.assertEqual((again.get(name), again.text), (text, text), name)


class Sizes(unittest.TestCase):
    """Large inputs: with quadratic cost these tests would take hours."""

    def test_many_siblings(self):
        text = "<a>" + "\n <b c='1'>\n  <d/>\n </b>" * 50_000 + "\n</a>"
        document = parse(text)
        children = document.root.children("b")
        self.assertEqual(len(children), 50_000)
        self.assertEqual(str(document), text)
        children[-1].child("d").set("e", "f")
        for _ in range(200):
            document.root.append("new")
        end = "<d/>\n </b>\n</a>"
        new = '<d e="f"/>\n </b>' + "\n <new></new>" * 200 + "\n</a>"
        self.assertEqual(str(document), text[: -len(end)] + new)

    def test_deep_nesting(self):
        inner = "<b>c</b>" * 20_000
        text = "<a>" * 250 + inner + "</a>" * 250
        document = parse(text)
        element = document.root
        for _ in range(249):
            element = element.child("a")
        self.assertEqual(len(element.children("b")), 20_000)
        element.set("d", "e")
        self.assertEqual(str(document), "<a>" * 249 + '<a d="e">' + inner + "</a>" * 250)
        with self.assertRaises(XmlError):
            parse("<a>" * 500_000)

    def test_many_children_are_removed_one_by_one(self):
        root = parse("<a>" + "\n<b c='1'/>" * 20_000 + "</a>").root
        count = 0
        while child := root.child("b", c="1"):
            root.remove(child)
            count += 1
        self.assertEqual(count, 20_000)

    def test_threads_may_read_one_document(self):
        root = parse("<a>" + "<b><c/></b>" * 5_000 + "</a>").root
        before = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            with ThreadPoolExecutor(4) as threads:
                counts = list(threads.map(lambda _: len(root.children("b")), range(4)))
        finally:
            sys.setswitchinterval(before)
        self.assertEqual(counts, [5_000] * 4)

    def test_many_attributes(self):
        attributes = "".join(f" a{n}='>'" for n in range(50_000))
        text = f"<a{attributes}/>"
        self.assertEqual(edited(text, lambda root: root.set("a49999", "x")), text[:-5] + '"x"/>')

    def test_much_markup_in_comments(self):
        text = "<a><!--" + "<b>" * 200_000 + "-->" + "<!--<-->" * 100_000 + "</a>"
        self.assertEqual(edited(text, lambda root: root.append("c")), text[:-4] + "<c></c></a>")


class Parsers(unittest.TestCase):
    """Random documents and changes, against the parsers and the tree of the standard library."""

    def test_only_what_is_well_formed_is_taken(self):
        chance = random.Random(1)
        taken = 0
        for _ in range(4000):
            text = mutated(chance, generated(chance))
            types = []
            parser = expat.ParserCreate("utf-8")
            parser.StartDoctypeDeclHandler = lambda *_, types=types: types.append(1)
            try:
                parser.Parse(text, True)
                well_formed = True
            except expat.ExpatError:
                well_formed = False
            if well_formed and not types:
                taken += 1
                document = parse(text)
                self.assertEqual(str(document), text)
                document.root.set("added", "<&>\"'\n")
                document.root.append("added").text = "<&>]]>\r\n"
                again = parse(str(document)).root
                self.assertEqual(again.get("added"), "<&>\"'\n")
                self.assertEqual(again.children("added")[-1].text, "<&>]]>\r\n")
            else:
                with self.assertRaises(XmlError):
                    parse(text)
        self.assertTrue(1000 < taken < 3000, taken)

    def test_changes_are_those_that_minidom_makes(self):
        chance = random.Random(2)
        for number in range(1500):
            text = generated(chance)
            document, tree = parse(text), minidom.parseString(text.encode())
            for _ in range(chance.randrange(1, 6)):
                change(chance, document.root, tree.documentElement)
            result = str(document)
            ElementTree.fromstring(result)
            with self.subTest(number):
                expected = canonical(tree.documentElement)
                self.assertEqual(
                    canonical(minidom.parseString(result.encode()).documentElement), expected
                )


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
        self.assertEqual(kubevirt_xml.__all__, ["Document", "Element", "XmlError", "parse"])


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


# ---- the same with minidom ----


def elements(node):
    return [it for it in node.childNodes if it.nodeType == Node.ELEMENT_NODE]


def own_text(node):
    return "".join(
        it.data
        for it in node.childNodes
        if it.nodeType in (Node.TEXT_NODE, Node.CDATA_SECTION_NODE)
    )


def everything(root, tree):
    """Finds all elements of a document, guided by a tree of it, and compares them with the tree."""
    pairs = [(root, tree.documentElement)]
    while pairs:
        element, node = pairs.pop()
        assert element.name == node.nodeName
        assert element.text == own_text(node), (element.text, own_text(node))
        assert all(element.get(name) == value for name, value in node.attributes.items())
        yield element
        for name in {it.nodeName for it in elements(node)}:
            same = [it for it in elements(node) if it.nodeName == name]
            found = element.children(name)
            assert len(found) == len(same), name
            pairs += zip(found, same)


def change(chance, element, node):
    """Makes one random change in a document and in a tree of it."""
    while elements(node) and chance.random() < 0.7:
        parent, below = element, node
        node = chance.choice(elements(below))
        same = [it for it in elements(below) if it.nodeName == node.nodeName]
        element = parent.children(node.nodeName)[same.index(node)]
        if chance.random() < 0.15:
            parent.remove(element)
            before = node.previousSibling
            if before and before.nodeType == Node.TEXT_NODE and not before.data.strip():
                below.removeChild(before)
            below.removeChild(node)
            return
    kind = chance.choice(("set", "set", "text", "append", "ensure"))
    value = chance.choice(("1", "2", "", "\t<'\">&\r\n", "ü"))
    if kind == "set":
        name = chance.choice(("a", "b", "p:a", "d"))
        element.set(name, value)
        # setAttribute would replace a with p:a.
        node.setAttributeNS("urn:p" if name == "p:a" else None, name, value)
    elif kind == "text":
        element.text = value
        replace_content(node, value)
    else:
        name = chance.choice(NAMES)
        wanted = {"a": value} if chance.random() < 0.5 else {}
        new = element.ensure(name, **wanted) if kind == "ensure" else element.append(name, **wanted)
        there = [
            it
            for it in elements(node)
            if it.nodeName == name and wanted.items() <= dict(it.attributes.items()).items()
        ]
        same = there[0] if kind == "ensure" and there else append(node, name, wanted)
        new.set("z", "26")
        same.setAttribute("z", "26")


def replace_content(node, text):
    while node.firstChild:
        node.removeChild(node.firstChild)
    node.appendChild(node.ownerDocument.createTextNode(text))


def append(node, name, attributes):
    """Inserts after the last element, as the module does."""
    new = node.ownerDocument.createElement(name)
    for attribute, value in attributes.items():
        new.setAttribute(attribute, value)
    behind = elements(node)[-1].nextSibling if elements(node) else None
    return node.insertBefore(new, behind)


def canonical(node):
    """Converts a tree to comparable values, without the white space between elements."""
    inside = [""]
    for child in node.childNodes:
        if child.nodeType in (Node.TEXT_NODE, Node.CDATA_SECTION_NODE):
            inside.append(inside.pop() + child.data)
        else:
            other = (
                canonical(child)
                if child.nodeType == Node.ELEMENT_NODE
                else (child.nodeType, child.nodeName, child.data)
            )
            inside += [other, ""]
    inside = [it.strip() if isinstance(it, str) else it for it in inside]
    return (node.nodeName, sorted(node.attributes.items()), inside)


if __name__ == "__main__":
    unittest.main()
