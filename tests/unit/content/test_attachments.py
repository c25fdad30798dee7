"""Attachments in every shape that callers have them in."""

from __future__ import annotations

import hashlib
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from congressy_mailer.content.attachments import Attachment, ReadAttachment, read_attachments
from congressy_mailer.exceptions import AttachmentTooLarge, AttachmentUnreadable

LIMIT = 1000


def read_one(given: Any) -> ReadAttachment:
    (attachment,) = read_attachments([given], LIMIT)
    return attachment


def test_shapes(tmp_path: Path) -> None:
    path = tmp_path / "boleto.pdf"
    path.write_bytes(b"%PDF")
    for given in (path, str(path), ("boleto.pdf", b"%PDF", "application/pdf"), ("boleto.pdf", b"%PDF")):
        assert read_one(given) == ReadAttachment("boleto.pdf", b"%PDF", "application/pdf", "")
    with path.open("rb") as file:
        file.read()
        assert read_one(file).content == b"%PDF"
    assert read_one(ContentFile(b"%PDF", name="a/boleto.pdf")).filename == "boleto.pdf"
    assert read_one(Attachment("lista.csv", "não")).content == "não".encode()
    assert read_one(Attachment("lista.csv", "x")).mimetype == "text/csv"
    assert read_one(Attachment("x", BytesIO(b"1"))).mimetype == "application/octet-stream"
    assert read_one(Attachment("x", StringIO("é"))).content == "é".encode()


def test_inline_image_of_django_idiom() -> None:
    image = MIMEImage(b"\x89PNG", "png")
    image.add_header("Content-ID", "<logo>")
    image.add_header("Content-Disposition", "inline", filename="logo.png")
    assert read_one(image) == ReadAttachment("logo.png", b"\x89PNG", "image/png", "logo")


def test_digest() -> None:
    assert read_one(("a", b"1")).sha256 == hashlib.sha256(b"1").hexdigest()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("/no/such/file.pdf", r"attachments\[0\]: .*No such file"),
        (42, r"attachments\[0\] is a int"),
        (("a", None, "text/plain"), r"the content is a NoneType"),
        (("a\nb", b""), "the file name holds a line break"),
        (("a" * 256, b""), "longer than 255"),
        (("a", b"", "multipart/mixed"), "is not the media type of a file"),
        (("a", b"", "text/plain\nX: y"), "is not the media type of a file"),
        (Attachment("a", b"", content_id="a>b"), "is not a content id"),
        (Attachment("a", "\ud800"), "cannot be written as UTF-8"),
        (MIMEMultipart(), "has parts of its own|parts of its own"),
    ],
)
def test_unreadable(given: Any, message: str) -> None:
    with pytest.raises(AttachmentUnreadable, match=message):
        read_attachments([given], LIMIT)


def test_closed_file_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    file = path.open("rb")
    file.close()
    with pytest.raises(AttachmentUnreadable, match="cannot be read"):
        read_attachments([file], LIMIT)


@pytest.mark.parametrize("given", ["boleto.pdf", b"x", 3, None])
def test_only_lists(given: Any) -> None:
    with pytest.raises(AttachmentUnreadable, match="attachments must be a list"):
        read_attachments(given, LIMIT)


def test_too_large_together() -> None:
    with pytest.raises(AttachmentTooLarge, match=r"attachments\[1\] \('b'\) brings the attachments to 1,001 bytes"):
        read_attachments([("a", b"x" * 500), ("b", b"x" * 501)], LIMIT)


def test_an_endless_file_is_not_read_to_its_end() -> None:
    class Endless(BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            assert size is not None and size > 0
            return b"x" * size

    with pytest.raises(AttachmentTooLarge):
        read_attachments([("a", Endless())], LIMIT)
