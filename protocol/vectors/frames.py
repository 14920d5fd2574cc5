"""Streams of bytes, and what a reader of frames finds in them."""


def frame(payload):
    """One frame."""
    return len(payload).to_bytes(4, "big") + payload


def _vector(name, about, stream, payloads, fault=None, shim=None):
    """`shim` is what the shim finds where that differs: it skips text between frames."""
    facts = {"about": about, "section": "protocol.md#frames"}
    facts["payloads"] = [shown(payload) for payload in payloads]
    facts["fault"] = fault
    if shim:
        facts["shim"] = shim
    return name, stream, facts


def shown(payload):
    """Bytes as text where they are some, else as hexadecimal digits."""
    try:
        return {"text": payload.decode()}
    except UnicodeDecodeError:
        return {"hex": payload.hex(" ")}


ALL = [
    _vector("empty", "A stream may end before its first frame", b"", []),
    _vector("one", "One frame", frame(b"{}"), [b"{}"]),
    _vector("shortest", "One byte is enough", frame(b"7"), [b"7"]),
    _vector(
        "several",
        "Frames follow each other without anything between them",
        frame(b'{"a":1}') + frame(b"<domain/>\n") + frame(b"{}"),
        [b'{"a":1}', b"<domain/>\n", b"{}"],
    ),
    _vector(
        "unicode",
        "The length counts bytes, not characters",
        frame("é€😀".encode()),
        ["é€😀".encode()],
    ),
    _vector(
        "any-bytes",
        "A frame holds any bytes: zeros, line ends, bytes that are no UTF-8, what looks like a header",
        frame(b"\x00\x00\x00\x02{}") + frame(b"\r\n\xff\xfe\x80\x00"),
        [b"\x00\x00\x00\x02{}", b"\r\n\xff\xfe\x80\x00"],
    ),
    _vector(
        "length-of-two-bytes",
        "The length is big-endian: 00 00 01 02 is 258",
        frame(b"x" * 258),
        [b"x" * 258],
    ),
    _vector("zero-length", "A frame holds at least one byte", frame(b"{}") + bytes(4) + frame(b"{}"), [b"{}"], "length"),
    _vector(
        "too-long",
        "16,777,216 bytes are one too many. The length alone is the fault: no body has to come, and no memory is taken for it",
        frame(b"{}") + b"\x01\x00\x00\x00",
        [b"{}"],
        "length",
        {"items": [{"text": "{}"}, {"stray": 1}], "fault": "torn"},
    ),
    _vector(
        "text",
        "Text where a header should be. The first byte of a header is always zero, and of a text never",
        frame(b"{}") + b"debugging\n" + frame(b"{}"),
        [b"{}"],
        "length",
        {"items": [{"text": "{}"}, {"stray": 10}, {"text": "{}"}], "fault": None},
    ),
    _vector("torn-header", "The stream ends inside a header", frame(b"{}") + b"\x00\x00", [b"{}"], "torn"),
    _vector("no-body", "The stream ends behind a header", frame(b"{}") + b"\x00\x00\x00\x02", [b"{}"], "torn"),
    _vector("torn-body", "The stream ends inside a body", frame(b"{}") + b"\x00\x00\x00\x0c<domai", [b"{}"], "torn"),
    _vector(
        "torn-longest",
        "16,777,215 bytes are the most that a frame holds, so this header is right; but the stream ends behind it",
        frame(b"{}") + b"\x00\xff\xff\xff<domain>",
        [b"{}"],
        "torn",
    ),
]
