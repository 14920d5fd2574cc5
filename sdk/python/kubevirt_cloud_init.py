# kubevirt_cloud_init of kubevirt-hook 0.1.0 for Python. May be copied, beside kubevirt_hook.py.
"""Adds a part of a hook's own to a VM's cloud-init user data.

    from kubevirt_cloud_init import put_part

    content = "#cloud-config\\ntimezone: Europe/Lisbon\\n"
    return {**data, "UserData": put_part(data["UserData"], "example.org-timezone", content)}

The owner's user data stays as it is, as a part beside the new one. docs/cloud-init.md says how
cloud-init merges them. This file needs Python 3.9 or later and kubevirt_hook.py.
"""

from __future__ import annotations

from kubevirt_hook import Refused, _mistake

__version__ = "0.1.0"
__all__ = ["put_part"]

# cloud-init derives the type of user data from its start, in any case. If two starts begin alike,
# the longer one comes first.
TYPES = (
    ("#cloud-config-archive", "text/cloud-config-archive"),
    ("#cloud-config-jsonp", "text/cloud-config-jsonp"),
    ("#cloud-config", "text/cloud-config"),
    ("#cloud-boothook", "text/cloud-boothook"),
    ("#part-handler", "text/part-handler"),
    ("#include-once", "text/x-include-once-url"),
    ("#include", "text/x-include-url"),
    ("## template: jinja", "text/jinja2"),
    ("#!", "text/x-shellscript"),
)
LONGEST_START = max(len(start) for start, _ in TYPES)
STARTS = "#cloud-config, #!, #include, #cloud-boothook, #part-handler or ## template: jinja"
SPACE = " \t\n\v\f\r"  # cloud-init skips it at the start

# How cloud-init merges a part into what came before, and the types for which it looks at that.
ADD = "list(append)+dict(no_replace,recurse_list)"
REPLACE = "dict(replace)+list()+str()"  # cloud-init's default
MERGED_TYPES = ("text/cloud-config", "text/jinja2")

# The multi-part that this module writes. The number makes the boundary one that no part contains.
MARK = "==sidecar-shim-"
HEAD = f'Content-Type: multipart/mixed; boundary="{MARK}'
HEAD_END = '=="\nMIME-Version: 1.0\n\n'
# How the owner's part begins, which comes first if there is one, and how the parts of hooks begin.
OWNER = "Content-Description: user data of the VM's owner\n"
NAMED = 'Content-Disposition: attachment; filename="'

# cloud-init takes user data for MIME if it has this text in that many of its first bytes.
MIME_SIGN, MIME_SIGN_WITHIN = b"mime-version:", 4096
MAX_NAME = 64  # the guest may use it as the name of a file
BASE64_OCTETS = 57  # in a line of 76 characters, as MIME demands


def put_part(user_data: str | None, name: str, content: str, *, replace: bool = False) -> str:
    """Returns the user data with this part added, or with this content in the part of this name.

    The content starts like any user data: with #cloud-config, #!, …. A #cloud-config only adds to
    the owner's: lists are appended, values that the owner has set stay. With `replace`, a key at
    the top level replaces the owner's, with all that is below it.

    Raises Refused if the user data cannot have parts, and ValueError if the name or the content is
    invalid.
    """
    if not _is_name(name):
        what = (
            f"the name of a part has 1 to {MAX_NAME} letters, digits, '.', '_' and '-', starts with"
            " a letter or a digit, and is not one of cloud-init's own, such as part-001"
        )
        raise _mistake(ValueError(what))
    kind = _type(content)
    if kind is None:
        raise _mistake(ValueError(f"the content of a part starts with {STARTS}"))
    head = f'{NAMED}{name}"\n'
    merge = f"Merge-Type: {REPLACE if replace else ADD}\n" if kind in MERGED_TYPES else ""
    part = head + _part(kind, content, merge)

    parts = _own_parts(user_data or "")
    if parts is None:
        parts = _owners_part(user_data or "")
    for index, other in enumerate(parts):
        if other.startswith(head):
            parts[index] = part
            break
    else:
        parts.append(part)
    return _multi_part(parts)


def _is_name(name: str) -> bool:
    letters = name.replace(".", "0").replace("_", "0").replace("-", "0")
    # In the guest, a script named part-001 would replace the owner's.
    reserved = name.startswith("part-") and name[len("part-") :].isdigit()
    valid = name.isascii() and letters.isalnum() and name[0].isalnum() and len(name) <= MAX_NAME
    return valid and not reserved


def _type(text: str) -> str | None:
    """Returns the type of user data, or None if cloud-init knows none with this start."""
    # Bytes, because `lower` would change some letters outside ASCII to letters inside.
    start = text.lstrip(SPACE)[:LONGEST_START].encode().lower().decode()
    return next((kind for prefix, kind in TYPES if start.startswith(prefix)), None)


def _part(kind: str, text: str, merge: str = "") -> str:
    """Returns a part without its first line."""
    head = f'Content-Type: {kind}; charset="utf-8"\n{merge}'
    # Without base64, cloud-init would not get other characters as they are.
    if text.isascii() and text.replace("\n", "").replace("\t", "").isprintable():
        return f"{head}\n{text}"
    import binascii

    octets = text.encode()
    rows = range(0, len(octets), BASE64_OCTETS)
    lines = b"".join(binascii.b2a_base64(octets[row : row + BASE64_OCTETS]) for row in rows)
    return f"{head}Content-Transfer-Encoding: base64\n\n{lines.decode()[:-1]}"


def _owners_part(user_data: str) -> list[str]:
    # KubeVirt wants user data, so owners who have none write white space.
    if not user_data.strip(SPACE):
        return []
    if _is_mime(user_data):
        return [OWNER + user_data]  # its headers become those of the part
    if user_data.startswith(("\x1f\x8b", "\x1f\ufffd")):
        raise _refused(
            "it is compressed, and KubeVirt damages compressed user data when it passes it to a"
            " hook; provide it uncompressed"
        )
    if user_data.startswith("\ufeff"):
        raise _refused(
            "it starts with a byte order mark, so cloud-init ignores it; remove the mark"
        )
    kind = _type(user_data)
    if kind is None:
        raise _refused(
            "it is not for cloud-init, so no part can be added; user data for cloud-init is MIME or"
            f" starts with {STARTS}"
        )
    return [OWNER + _part(kind, user_data)]


def _is_mime(user_data: str) -> bool:
    first_bytes = user_data[:MIME_SIGN_WITHIN].encode()[:MIME_SIGN_WITHIN]
    if MIME_SIGN not in first_bytes.lower():
        return False
    # Unless the first line is a header, cloud-init takes all of it for the content.
    line = user_data.partition("\n")[0]
    name, colon, _ = line.partition(":")
    is_field = bool(colon) and name.isascii() and name.isprintable() and " " not in name
    return is_field or line.startswith(("From ", " ", "\t"))


def _refused(why: str) -> Refused:
    return Refused(f"the VM's cloud-init user data: {why}")


def _own_parts(user_data: str) -> list[str] | None:
    """Returns the parts of a multi-part that this module wrote, or None if it is not one."""
    if not user_data.startswith(HEAD):
        return None
    number, _, body = user_data[len(HEAD) :].partition(HEAD_END)
    delimiter = f"--{MARK}{number}=="
    parts = body[len(delimiter) + 1 : -len(delimiter) - 4].split(f"\n{delimiter}\n")
    heads = [part.partition("\n")[0] for part in parts]
    named = heads[1:] if parts[0].startswith(OWNER) else heads
    valid = len(set(named)) == len(named) and all(
        head.startswith(NAMED) and head.endswith('"') and _is_name(head[len(NAMED) : -1])
        for head in named
    )
    return parts if valid and _multi_part(parts) == user_data else None


def _multi_part(parts: list[str]) -> str:
    taken = set()
    for part in parts:
        for rest in part.split(MARK)[1:]:
            taken.add(rest[: len(rest) - len(rest.lstrip("0123456789"))])
    number = 0
    while str(number) in taken:
        number += 1
    delimiter = f"--{MARK}{number}=="
    body = "".join(f"{delimiter}\n{part}\n" for part in parts)
    return f"{HEAD}{number}{HEAD_END}{body}{delimiter}--\n"
