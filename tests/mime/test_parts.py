"""A mail that others have written, whatever stands in its header fields, is read without an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.mime.outgoing import django_part
from congressy_mailer.mime.parts import as_attachment, file_content, read_fields, read_parts

pytestmark = pytest.mark.fuzz

PIECES = st.sampled_from([
    "attachment", "inline", "text/", "plain", "html", "image/png", "multipart/mixed", "message/rfc822",
    "; ", ";", ";;", "filename=", "filename*=", "filename*0*=", "utf-8''a%C3%A3", "=?utf-8?q?x?=", "charset=", "bogus",
    "boundary=B", "name=", '"', "'", "\\", "*", "(c", "é", "\x00", "0", "a@b", "<x>",
])  # fmt: skip
VALUES = st.lists(PIECES, max_size=8).map("".join)


@given(VALUES, VALUES, st.sampled_from(["base64", "7bit", "quoted-printable", "x", ""]), VALUES, VALUES)
def test_a_written_mail_is_read_whatever_its_fields_say(
    kind: str, disposition: str, encoding: str, subject: str, root: str
) -> None:
    wire = (
        f"Subject: {subject}\r\nTo: {root}\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n--B\r\n"
        f"Content-Type: text/plain\r\n\r\nhi\r\n--B\r\nContent-Type: {kind}\r\nContent-Disposition: {disposition}\r\n"
        f"Content-Transfer-Encoding: {encoding}\r\n\r\nYWJj\r\n--B--\r\n"
    ).encode()
    assert [name for name, _ in read_fields(wire)] == ["Subject", "To", "Content-Type"]
    parts = read_parts(wire)
    assert parts.body.removesuffix("\n") == "hi"
    for part in parts.files:
        attachment = as_attachment(part)
        assert attachment is None or isinstance(attachment.content, (bytes, str))
        assert django_part(part.as_bytes()).get_payload() is not None
        assert isinstance(file_content(part), bytes)


@given(VALUES)
def test_a_written_mail_is_read_whatever_the_type_of_all_of_it(kind: str) -> None:
    wire = f"Content-Type: {kind}\r\n\r\n--B\r\n\r\nhi\r\n--B--\r\n".encode()
    parts = read_parts(wire)
    assert parts.body or parts.files
