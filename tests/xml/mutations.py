"""Realistic domains, and what hooks, editors and web pages do to them."""

import random
import re

# Short domains, in which a mutation hits something more often than in whole ones.
SHORT = [
    text.encode()
    for text in (
        "<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\n  <name>a</name>\n"
        "  <qemu:commandline>\n    <qemu:arg value='-s'/>\n  </qemu:commandline>\n</domain>\n",
        '<domain type="kvm">\n  <name>ns_vm1</name>\n  <memory unit="b">1073741824</memory>\n  <devices></devices>\n'
        '  <commandline xmlns="http://libvirt.org/schemas/domain/qemu/1.0">\n    <arg value="-rtc"></arg>\n'
        "  </commandline>\n</domain>\n",
        "<?xml version='1.0' encoding='utf-8'?>\n<!-- a hook's -->\n<domain><metadata>"
        "<app:x xmlns:app='urn:example:app' app:a='1' a='2'>&lt;caf\u00e9&gt; &#10;</app:x></metadata></domain>",
        "<domain><description><![CDATA[a < b && c]]></description><?keep this?><os><type arch='x86_64'>hvm</type>"
        "<boot dev='hd'/></os></domain>",
        "<domain xmlns:a='urn:a' xmlns:b='urn:a' xmlns:c='urn:c'><a:x a:y='1' c:y='2' y='3'/><b:x b:y='\"'/></domain>",
    )
]

# What pages and editors put into text, and what XML does not allow.
CHARACTERS = [
    c.encode()
    for c in (
        "\u00a0\u00ad\u200b\u200c\u200d\u2011\u2018\u2019\u201c\u201d\u2028\ufeff\u00b7\u0301\u00d7\u037e\u2160"
        "\u00e9\u0660\u4e2d\u3007\uac00\ufb00\uff1a\uff1d\u0132\u0e33\U00010000\U0001f600"
    )
]
FORBIDDEN = [bytes([byte]) for byte in (*range(32), 0x7F)] + [c.encode() for c in "\u0085\u009b\ufffe\uffff\ufffd"]
MARKUP = [
    text.encode()
    for text in (
        "&", "&lt;", "&amp;", "&nbsp;", "&lt", "&#", "&#;", "&#0;", "&#9;", "&#x41;", "&#X41;", "&#xD800;",
        "&#xFFFF;", "&#x10FFFF;", "&#x110000;", "&#00000000000000000000065;", "&#99999999999999999999;", "&a:b;",
        "&;", "<!-- c -->", "<!---->", "<!--->", "<!-->", "<!-- a -- b -->", "<!-- a --->", "<!--", "-->",
        "<!- c -->", "<![CDATA[x]]>", "<![CDATA[]]]]>", "<![CDATA[", "]]>", "]]", "]", "<![cdata[x]]>",
        "<![CDATA [x]]>", "<!x>", "<?p?>", "<?p x?>", "<?p x??>", "<?p??>", "<?p", "<??>", "<? p?>", "<?p:q?>",
        "<?xml?>", "<?XML x?>", "<?xml-x y?>", "<?xml version='1.0'?>", "<?p\u00a0x?>", "?>", "<!DOCTYPE domain>",
        "<!DOCTYPE domain [", "<", ">", "/", "/>", "</", "'", '"', "=", " ", "\t", "\r\n", ":", "::", ";", "#", "%",
        "-", ".", "_", "1", "!", "?", "[", "{", "@", "\\", "<a>", "</a>", "<a/>", "<a />", "<a / >", "< a/>",
        "<a b/>", "<a b=/>", "<a b=1/>", "<a b='1'c='2'/>", "<a b='1' b='2'/>", "<a b=''\u00a0c=''/>", "<:a/>",
        "<a:/>", "<a:b:c/>", "<a:1/>", "<1/>", "<-/>", "<qemu:arg/>", "<q:a xmlns:q='urn:q'/>", "<xml:a/>",
        "<xmlns:a/>", "<a xml:id='i'/>", "<a b='<'/>", "<a b='>'/>", "</a >", "</ a>", "<a xmlns=''/>", "<xml/>",
    )
]
ATTRIBUTES = [
    text.encode()
    for text in (
        "a='1'", "a=\"1\"", "a = '1'", "a='&lt;'", "a='&'", "a='&x;'", "a='<'", "a", "a=", "a=1", "a=\u201c1\u201d",
        "qemu:a='1'", "a:y=''", "b:y=''", "c:y=''", "xml:lang='de'", "xml:space='x'", "xml:id='1'", "xml:foo=''",
        ":a=''", "a:=''", "a:b:c=''", "xmlns=''", "xmlns='urn:d'", "xmlns='a b'", "xmlns:=''", "xmlns:p=''",
        "xmlns:p='urn:p'", "xmlns:1='urn:p'", "xmlns:a='urn:z'", "xmlns:xml='urn:p'", "xmlns:xmlns='urn:p'",
        "xmlns:p='http://www.w3.org/2000/xmlns/'", "xmlns:xml='http://www.w3.org/XML/1998/namespace'",
        "xmlns:p='http://www.w3.org/XML/1998/namespace'", "xmlns:p='http://a:b/'", "xmlns:p='http://[::1]/'",
        "xmlns:p='%41'", "xmlns:p='%4'", "xmlns:p='1:a'", "xmlns:p=':'", "xmlns:p='http://a b'",
        "xmlns:p='http://a@b/'", "xmlns:p='a#b#c'", "xmlns:p='&#104;ttp://a'", "xmlns:p='http://caf\u00e9'",
        "xmlns:qemu='urn:other'", "xmlns:p=' urn:a'", "xmlns:p='urn:a' xmlns:q='urn:a' p:a='' q:a=''",
        "xmlns:p='a&amp;b' xmlns:q='a&#38;b' p:a='' q:a=''", "xmlns:p='http://a:80/?b=c&amp;d#e'",
    )
]
DECLARATIONS = [
    text.encode()
    for text in (
        "<?xml version='1.0'?>", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
        "<?xml version='1.0' encoding='utf-8' ?>", "<?xml version='1.0' encoding='ISO-8859-1'?>",
        "<?xml version='1.0' encoding='latin1'?>", "<?xml version='1.0' encoding=''?>",
        "<?xml version='1.0' encoding='UTF-16'?>", "<?xml version='1.0' encoding='US-ASCII'?>",
        "<?xml version='1.0' encoding='UTF8'?>", "<?xml version='1.1'?>", "<?xml version='1.1' encoding='utf-8'?>",
        "<?xml version='2.0'?>", "<?xml version=''?>", "<?xml?>", "<?xml version='1.0' standalone='yes'?>",
        "<?xml version='1.0' standalone='no' ?>", "<?xml version='1.0' standalone='maybe'?>",
        "<?xml version='1.0' standalone='yes' encoding='utf-8'?>", "<?xml encoding='utf-8'?>",
        "<?xml encoding='utf-8' version='1.0'?>", "<?xml version='1.0'encoding='utf-8'?>",
        "<?xml  version = '1.0'\tencoding\n=\r'utf-8'?>", "<?xml version='1.0'", " <?xml version='1.0'?>",
        "<?xml version='1.0' ? >", "<?xml version='1.0\"?>", "<?xml version=1.0?>", "<?xml version='1.0' other='x'?>",
        "<?XML version='1.0'?>", "<?xml version='1.0'?><?xml version='1.0'?>", "\ufeff", "\ufeff\ufeff",
        "\ufeff<?xml version='1.0'?>", "<?xmlx?>", "<?xml\u00a0version='1.0'?>", "<!DOCTYPE domain>",
        "<!DOCTYPE domain [<!ENTITY a 'b'>]>", "<?xml version='1.0'?><!DOCTYPE domain SYSTEM 'x'>", "<!-- a -->",
        "\n\t", "<?p?>", "x", "&#32;", "<![CDATA[]]>",
    )
]
# Not UTF-8: a part of a character, an overlong one, a surrogate, one beyond the last.
INVALID = [b"\xe9", b"\xc3", b"\x80", b"\xc0\xbc", b"\xe0\x80\xbc", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\xfe\xff"]

NAME = re.compile(rb"(?<=[</ \n\t])[A-Za-z][\w:.-]*")
TAG_NAME = re.compile(rb"<[A-Za-z][\w:.-]*")
ATTRIBUTE = re.compile(rb"[ \t\n]+[\w:.-]+=(\"[^\"]*\"|'[^']*')")
NAMESPACE = re.compile(rb"(?<=[\"'])(http|urn):[^\"']*")


def insert(chance: random.Random, text: bytes, what: bytes, at: int | None = None) -> bytes:
    at = chance.randint(0, len(text)) if at is None else at
    return text[:at] + what + text[at:]


def place(chance: random.Random, text: bytes, pattern: re.Pattern) -> re.Match | None:
    """Returns one place where the pattern fits."""
    found = list(pattern.finditer(text))
    return chance.choice(found) if found else None


def inside(chance: random.Random, text: bytes, pattern: re.Pattern, what: bytes) -> bytes:
    found = place(chance, text, pattern)
    return insert(chance, text, what, chance.randint(*found.span())) if found else text


def behind_tag_name(chance, text):
    found = place(chance, text, TAG_NAME)
    return insert(chance, text, b" " + chance.choice(ATTRIBUTES), found.end()) if found else text


def duplicate_attribute(chance, text):
    found = place(chance, text, ATTRIBUTE)
    return insert(chance, text, found[0], found.end()) if found else text


def drop_attribute(chance, text):
    found = place(chance, text, ATTRIBUTE)
    return text[: found.start()] + text[found.end() :] if found else text


def rename(chance, text):
    """Another name in a start or an end tag, or in both."""
    found = place(chance, text, NAME)
    if not found:
        return text
    name = chance.choice([b"qemu:arg", b"a:x", b"b:x", b"a:b:c", b":a", b"a:", b"A", b"x\xc3\xa9", found[0].upper()])
    if chance.random() < 0.5:
        return re.sub(rb"(?<=[</])" + re.escape(found[0]) + rb"(?=[ />])", lambda _: name, text)
    return text[: found.start()] + name + text[found.end() :]


def flip(chance, text):
    at = chance.randrange(len(text))
    byte = chance.choice([text[at] ^ (1 << chance.randrange(8)), chance.randrange(256)])
    return text[:at] + bytes([byte]) + text[at + 1 :]


def cut(chance, text):
    at = chance.randrange(len(text))
    return text[:at] + text[at + chance.randint(1, 8) :]


def repeat(chance, text):
    at = chance.randrange(len(text))
    return insert(chance, text, text[at : at + chance.randint(1, 200)])


def curly(chance, text):
    found = place(chance, text, re.compile(rb"[\"']"))
    quote = chance.choice(["\u2018", "\u2019", "\u201c", "\u201d", "\u00ab"]).encode()
    return text[: found.start()] + quote + text[found.end() :] if found else text


def deeper(chance, text):
    depth = chance.choice([10, 250, 255, 256, 300])
    return text.replace(b"<name>", b"<a>" * depth + b"<name>").replace(b"</name>", b"</name>" + b"</a>" * depth)


MUTATIONS = [
    (6, lambda chance, text: inside(chance, text, NAME, chance.choice(CHARACTERS))),
    (4, lambda chance, text: inside(chance, text, NAME, b":")),
    (2, lambda chance, text: inside(chance, text, NAMESPACE, chance.choice(CHARACTERS + MARKUP))),
    (4, behind_tag_name),
    (2, duplicate_attribute),
    (3, drop_attribute),
    (3, rename),
    (2, lambda chance, text: insert(chance, text, chance.choice(FORBIDDEN))),
    (3, lambda chance, text: insert(chance, text, chance.choice(CHARACTERS))),
    (6, lambda chance, text: insert(chance, text, chance.choice(MARKUP))),
    # Between two tags.
    (3, lambda chance, text: inside(chance, text, re.compile(rb"(?<=>)"), chance.choice(MARKUP))),
    (2, lambda chance, text: insert(chance, text, chance.choice(DECLARATIONS), 0)),
    (1, lambda chance, text: text + chance.choice(MARKUP + CHARACTERS + FORBIDDEN)),
    (1, lambda chance, text: insert(chance, text, chance.choice(INVALID))),
    (3, flip),
    (2, cut),
    (1, lambda chance, text: text[: chance.randrange(len(text))]),
    (1, repeat),
    (1, curly),
    (0.2, deeper),
]
WEIGHTS = [weight for weight, _ in MUTATIONS]


def mutated(chance: random.Random, whole: list[bytes]) -> bytes:
    text = chance.choice(whole if chance.random() < 0.3 else SHORT)
    for _, mutate in chance.choices(MUTATIONS, WEIGHTS, k=chance.choice([1, 1, 1, 2, 3])):
        text = mutate(chance, text) or b"<"
    return text
