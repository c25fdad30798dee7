"""A mail read as strictly as can be, octet by octet, beside the lenient parsers that mail programs have."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_FIELD = re.compile(rb"([!-9;-~]+):((?:[ -~]|\r\n [ ]*(?=[!-~]))*)\r\n")
_BOUNDARY = re.compile(r'^multipart/.*; boundary="([^"]+)"$')


@dataclass
class RawPart:
    """A part with its fields as they stand, unfolded."""

    fields: list[tuple[str, str]]
    body: bytes
    parts: list[RawPart] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """Names of its fields, in their order."""
        return [name for name, _ in self.fields]

    def all_parts(self) -> list[RawPart]:
        """Itself and everything in it."""
        return [self, *(inner for part in self.parts for inner in part.all_parts())]


def read_raw(content: bytes) -> RawPart:
    """Read a mail.

    Raises:
        AssertionError: it is not lines of ASCII of at most 998 octets, each head fields with a name, that stand once.
    """
    assert content.isascii() and b"\0" not in content
    assert content.count(b"\r\n") == content.count(b"\r") == content.count(b"\n")
    assert max(map(len, content.split(b"\r\n"))) <= 998
    return _read(content)


def _read(content: bytes) -> RawPart:
    fields = []
    position = 0
    while not content.startswith(b"\r\n", position):
        found = _FIELD.match(content, position)
        assert found is not None, content[position : position + 200]
        fields.append((found[1].decode(), found[2].decode().replace("\r\n", "").strip(" ")))
        position = found.end()
    lines = content[:position].split(b"\r\n")
    assert all(len(line) <= 76 for line in lines if re.search(rb"=\?utf-8\?q\?.*\?=", line))
    part = RawPart(fields, content[position + 2 :])
    names = [name.lower() for name in part.names]
    assert len(set(names)) == len(names)
    boundary = _BOUNDARY.match(dict(fields).get("Content-Type", ""))
    if boundary:
        delimiter = b"--" + boundary[1].encode()
        preamble, *parts, epilogue = (b"\r\n" + part.body).split(b"\r\n" + delimiter)
        assert (preamble, epilogue) == (b"", b"--\r\n")
        assert parts and all(one.startswith(b"\r\n") for one in parts)
        part.parts = [_read(one[2:]) for one in parts]
    return part
