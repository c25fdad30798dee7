"""Attachments in every shape that callers have them in."""

from __future__ import annotations

import hashlib
from email.mime.image import MIMEImage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from io import BytesIO, RawIOBase, StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile

from congressy_mailer import models
from congressy_mailer.exceptions import AttachmentTooLarge, AttachmentUnreadable
from congressy_mailer.mime.attachments import Attachment, LoadedAttachment, media_type, read_attachments

LIMIT = 1000


def read_one(given: Any) -> LoadedAttachment:
    (attachment,) = read_attachments([given], LIMIT)
    return attachment


def test_shapes(tmp_path: Path) -> None:
    path = tmp_path / "boleto.pdf"
    path.write_bytes(b"%PDF")
    for given in (path, str(path), ("boleto.pdf", b"%PDF", "application/pdf"), ("boleto.pdf", b"%PDF")):
        assert read_one(given) == LoadedAttachment("boleto.pdf", b"%PDF", "application/pdf", "")
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
    assert read_one(image) == LoadedAttachment("logo.png", b"\x89PNG", "image/png", "logo", inline=True)


def test_a_list_is_taken_like_a_tuple() -> None:
    assert read_one(["a.txt", "x", "text/plain"]) == LoadedAttachment("a.txt", b"x", "text/plain", "")


def test_media_types_with_parameters() -> None:
    given = "text/calendar; method=REQUEST; charset=utf-8"
    assert read_one(("i.ics", "ção", given)) == LoadedAttachment("i.ics", "ção".encode(), given, "")
    assert read_one(("a.txt", "ção", "text/plain; charset=iso-8859-1")).content == "ção".encode("latin-1")
    assert media_type('text/x; A="b; c=d" ;e=f;') == ("text/x", {"a": "b; c=d", "e": "f"})
    part = MIMEText("ção", "calendar", "iso-8859-1")
    part.set_param("method", "REQUEST")
    part.set_param("name", "i.ics")
    assert media_type(read_one(part).mimetype) == ("text/calendar", {"charset": "iso-8859-1", "method": "REQUEST"})


def test_a_mail_of_unknown_type_is_bytes() -> None:
    assert read_one(("boleto.eml", b"Subject: x\r\n\r\nx")).mimetype == "application/octet-stream"


def test_a_stored_file_that_is_gone_is_unreadable() -> None:
    for given in (models.Attachment(file="gone").file, ("a.pdf", models.Attachment(file="gone").file)):
        with pytest.raises(AttachmentUnreadable, match=r"attachments\[0\]: it cannot be read: FileNotFoundError"):
            read_attachments([given], LIMIT)


def test_errors_of_a_storage() -> None:
    class Broken(BytesIO):
        error: BaseException = RuntimeError("the bucket is away")

        def read(self, size: int | None = -1, /) -> bytes:
            raise self.error

    for given in (Broken(), ("a", Broken())):
        with pytest.raises(AttachmentUnreadable, match="cannot be read: RuntimeError: the bucket is away"):
            read_attachments([given], LIMIT)
    Broken.error = MemoryError()
    with pytest.raises(MemoryError):
        read_attachments([Broken()], LIMIT)


def test_a_raw_stream_is_read_to_its_end() -> None:
    class Dribbling(RawIOBase):
        """Gives what it has at the moment, as a pipe does."""

        def __init__(self, *chunks: bytes | None) -> None:
            self.chunks = list(chunks)

        def read(self, size: int = -1, /) -> bytes | None:
            return self.chunks.pop(0) if self.chunks else b""

    assert read_one(("a", Dribbling(b"a" * 400, b"b" * 400))).content == b"a" * 400 + b"b" * 400
    assert read_one(("a", Dribbling())).content == b""
    with pytest.raises(AttachmentTooLarge):
        read_one(("a", Dribbling(b"a" * 400, b"b" * 400, b"c" * 400)))
    with pytest.raises(AttachmentUnreadable, match="does not wait"):
        read_one(("a", Dribbling(b"a", None)))


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
        (("a", b"", "Multipart/Mixed"), "is not the media type of a file"),
        (("a", b"", "Message/RFC822"), "Attach a mail as 'application/octet-stream'"),
        (("a", b"", "text/plain\nX: y"), "is not the media type of a file"),
        (("a", b"", "text/plain; charset"), "is not the media type of a file"),
        (("a", b"", "text/plain; a=1; A=2"), "is not the media type of a file"),
        (("a", b"", f"text/plain; a={'x' * 255}"), "the media type is longer than 255"),
        (("a", "x", "text/plain; charset=klingon"), "cannot be written as KLINGON"),
        (("a", "ç", "text/plain; charset=us-ascii"), "cannot be written as US-ASCII"),
        ((b"a", b""), "the file name is bytes"),
        ("a\0b", "null byte"),
        (Attachment("a", b"", content_id=5), "'5' is not a content id"),  # type: ignore[arg-type]
        (models.Attachment().file, "cannot be read: ValueError: The 'file' attribute has no file"),
        (("a", models.Attachment().file), "cannot be read: ValueError: The 'file' attribute has no file"),
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
