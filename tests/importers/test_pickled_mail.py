"""Pickles that another package has stored: mail is read from them, and none of them is obeyed."""

from __future__ import annotations

import pickle
import re
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from email.message import EmailMessage as StandardMessage
from email.message import MIMEPart
from email.mime.image import MIMEImage
from typing import Any

import django
import pytest
from anymail.message import AnymailMessage
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils import translation
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy, pgettext_lazy

from congressy_mailer.importers.pickle_reader import Global, PickleRefused, read_pickle
from congressy_mailer.importers.pickled_mail import ADMITTED, mail_from_pickle
from congressy_mailer.mime.django_mail import django_mail_bytes
from tests.support.pickles import CALLED, HOSTILE, MAIL, mail_with, named, text


class OwnMail(EmailMessage):
    """A project's own class."""


def rich() -> EmailMultiAlternatives:
    mail = EmailMultiAlternatives(
        "Inscrição", mark_safe("Olá, Ana."), "Evento <evento@example.com>", ["Ana <ana@example.com>"],
        cc=["eva@example.com"], bcc=("rui@example.com",), reply_to=["org@example.com"],
        headers={"X-Order": "7", "Message-ID": "<1@example.com>", "Date": "Sat, 28 Nov 2026 10:00:00 -0000"},
    )  # fmt: skip
    mail.attach_alternative("<p>Olá</p>", "text/html")
    mail.attach("programa.txt", "Às dez", "text/plain")
    mail.attach("boleto.pdf", b"%PDF-1", "application/pdf")
    mail.attach(None, b"\x00", "image/x-own")
    return mail


def without_boundaries(mail: EmailMessage) -> bytes:
    return re.sub(rb"={10,}\d+==", b"boundary", django_mail_bytes(mail))


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_mail_is_read_as_it_was_written(protocol: int) -> None:
    mail = rich()
    if protocol == 2:
        # Bytes are a call of a codec there, which is not admitted.
        mail.attachments = mail.attachments[:1]
    read = mail_from_pickle(pickle.dumps(mail, protocol))
    assert (read.to, read.cc, read.bcc) == (mail.to, mail.cc, mail.bcc)
    assert without_boundaries(read) == without_boundaries(mail)


def test_parts_that_were_attached_are_kept() -> None:
    mail = EmailMessage("x", "y", "a@example.com", ["b@example.com"])
    image = MIMEImage(b"\x89PNG", "png")
    image.add_header("Content-ID", "<logo>")
    # Django 6.1 deprecates that it is given one.
    mail.attachments.append(image)
    if django.VERSION >= (6, 0):
        part = MIMEPart()
        part.set_content(b"\x89PNG", maintype="image", subtype="png", cid="<second>", filename="ação.png")
        mail.attach(part)
    mail.extra_headers["X-Number"] = 3
    read = mail_from_pickle(pickle.dumps(mail))
    assert read.extra_headers == {"X-Number": "3"}
    parts = [part for part in read.attachments if not isinstance(part, tuple)]
    assert [part["Content-ID"] for part in parts] == ["<logo>", "<second>"][: len(parts)]
    assert [part.get_payload(decode=True) for part in parts] == [b"\x89PNG"] * len(mail.attachments)
    assert [part.get_filename() for part in parts] == [None, "ação.png"][: len(parts)]


def test_forms_translations_and_attributes_of_others() -> None:
    with translation.override("pt-br"):
        mail = AnymailMessage(
            gettext_lazy("Yes"), pgettext_lazy("alt. month", "May"), "a@example.com", ["b@example.com"]
        )
        mail.content_subtype, mail.encoding = "html", "iso-8859-1"
        mail.tags, mail.metadata, mail.track_clicks = ["welcome"], {"order": {"lines": [1, 2.5, None]}}, False
        mail.account, mail.forgotten = "second", "x"  # type: ignore[attr-defined]
        read = mail_from_pickle(pickle.dumps(mail), ("account",))
        assert (read.subject, read.body) == (str(mail.subject), str(mail.body)) != ("Yes", "May")
    assert (read.content_subtype, read.encoding) == ("html", "iso8859-1")
    assert (read.tags, read.metadata) == (["welcome"], {"order": {"lines": [1, 2.5, None]}})  # type: ignore[attr-defined]
    assert (read.track_clicks, read.account) == (False, "second")  # type: ignore[attr-defined]
    assert not {"forgotten", "anymail_status", "merge_data"} & vars(read).keys()


def test_what_may_be_named_are_single_names() -> None:
    assert all("." not in one.name for one in ADMITTED)
    for one in ("eval", "getattr", "exec", "__import__", "open"):
        assert Global("builtins", one) not in ADMITTED


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE)
def test_what_a_mail_does_not_need_is_not_even_looked_up(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    # Also what the mail's reader would not look at.
    for field in ("subject", "connection"):
        with pytest.raises(PickleRefused, match="it names|it holds"):
            mail_from_pickle(mail_with(field, value))
    assert CALLED == []


def test_the_hostile_ones_would_have_been_obeyed() -> None:
    pickle.loads(b"\x80\x04" + HOSTILE["ours"] + b".")  # noqa: S301
    assert CALLED.pop() == "()"


#: A piece of a pickle of what is admitted by itself.
ODD = {
    "a call of a text's class": ("subject", named("builtins", "str") + b"K\x01\x85R"),
    "a safe text of something else": ("body", named("django.utils.safestring", "SafeString") + b"K\x01\x85\x81"),
    "a safe text of a mail": (
        "body",
        named("django.utils.safestring", "SafeString") + MAIL + b"\x85\x81",
    ),
    "a lazy call of something else": (
        "subject",
        named("django.utils.functional", "_lazy_proxy_unpickle") + named("builtins", "str") + text("a") + b"\x85}\x87R",
    ),
    "a lazy call of a list": ("subject", named("django.utils.functional", "_lazy_proxy_unpickle") + b"]]\x86R"),
    "a translation of a number": (
        "subject",
        named("django.utils.functional", "_lazy_proxy_unpickle")
        + named("django.utils.translation", "gettext") + b"K\x01\x85}\x87R",
    ),
    "a name in place of a text": ("from_email", named("builtins", "str")),
    "bytes in place of a text": ("subject", b"C\x01a"),
    "recipients that are a text": ("cc", text("ana@example.com")),
    "recipients that are numbers": ("cc", b"]K\x01a"),
    "headers that are a list": ("extra_headers", b"]K\x01a"),
    "a header that is a list": ("extra_headers", b"}" + text("X") + b"]s"),
    "an attachment of two": ("attachments", b"]" + text("a") + text("b") + b"\x86a"),
    "an attachment of numbers": ("attachments", b"]K\x01K\x02K\x03\x87a"),
    "an attachment that is a mail": (
        "attachments", b"]" + named("django.core.mail.message", "EmailMessage") + b")\x81a",
    ),
    "a part without content": ("attachments", b"]" + named("email.mime.base", "MIMEBase") + b")\x81a"),
    "a part with a header of two lines": (
        "attachments",
        b"]" + named("email.mime.base", "MIMEBase") + b")\x81}(" + text("_payload") + text("x") + text("_headers")
        + b"](" + text("X") + text("a\nBcc: x") + b"\x86eu" + b"ba",
    ),
    "a subtype of two lines": ("content_subtype", text("html\nX: y")),
    "an encoding that is none": ("encoding", text("no-such")),
    "an encoding that is a list": ("encoding", b"]"),
    "a metadata that is a mail": ("metadata", MAIL + b")\x81"),
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), ODD.values(), ids=ODD)
def test_a_field_of_another_type_is_refused(field: str, value: bytes) -> None:
    with pytest.raises(PickleRefused):
        mail_from_pickle(mail_with(field, value))


def test_a_state_is_only_kept() -> None:
    # What unpickling would give to __setstate__, or write over attributes of the class.
    value = named("django.core.mail.message", "EmailAttachment") + b")\x81}" + text("__class__") + text("x") + b"sb"
    read = mail_from_pickle(mail_with("connection", value))
    assert read.to == ["b@example.com"]


DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "no pickle": lambda content: b"From: a@example.com\n\nHello",
    "without its end": lambda content: content[:-1],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "with a mark left open": lambda content: b"\x80\x04(" + content[2:],
    "with something left": lambda content: content[:2] + b"N" + content[2:],
    "another thing": lambda content: pickle.dumps({"to": ["b@example.com"]}),
    "an unknown entry of the memo": lambda content: b"\x80\x04h\x07.",
    "from an empty stack": lambda content: b"\x80\x04\x85.",
    "a state of nothing": lambda content: b"\x80\x04]}b.",
    "two states": lambda content: content[:-1] + b"}b.",
    "an item of a text": lambda content: b"\x80\x04" + text("a") + b"Na.",
    "a key that is a list": lambda content: b"\x80\x04}]Ns.",
    "a key without a value": lambda content: b"\x80\x04}(Nu.",
    "text that is not UTF-8": lambda content: b"\x80\x04\x8c\x02\xff\xff.",
    "a length beyond its end": lambda content: b"\x80\x04\x8d" + struct.pack("<Q", 2**62) + b"x.",
    "a length beyond all": lambda content: b"\x80\x04\x8e" + struct.pack("<Q", 2**64 - 1) + b"x.",
    "a number of negative length": lambda content: b"\x80\x04\x8b" + struct.pack("<i", -1) + b".",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_refused(damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(PickleRefused):
        mail_from_pickle(damage(pickle.dumps(rich())))


def test_each_cut_and_each_changed_byte_is_a_mail_or_refused() -> None:
    content = pickle.dumps(EmailMessage("x", "y", "a@example.com", ["b@example.com"]))
    for place in range(len(content)):
        for changed in (
            content[:place],
            *(content[:place] + bytes([one]) + content[place + 1 :] for one in range(256)),
        ):
            with suppress(PickleRefused):
                mail_from_pickle(changed)


def test_a_huge_number_in_the_memo_takes_no_memory() -> None:
    tracemalloc.start()
    content = b"\x80\x04Nr" + struct.pack("<I", 2**31) + b"j" + struct.pack("<I", 2**31) + b"\x86."
    assert read_pickle(content, ()) == (None, None)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


def test_content_that_is_named_many_times_is_counted_each_time(settings: Any) -> None:
    settings.CONGRESSY_MAILER = {**settings.CONGRESSY_MAILER, "MAX_ATTACHMENT_BYTES": 1000}
    one = text("a.txt") + b"q\x00" + text("x" * 200) + b"q\x01" + text("text/plain") + b"q\x02\x87"
    again = b"h\x00h\x01h\x02\x87"
    assert len(mail_from_pickle(mail_with("attachments", b"](" + one + again * 4 + b"e")).attachments) == 5
    with pytest.raises(PickleRefused, match="MAX_ATTACHMENT_BYTES"):
        mail_from_pickle(mail_with("attachments", b"](" + one + again * 5 + b"e"))


def test_what_contains_itself_or_is_nested_without_end_is_refused() -> None:
    with pytest.raises(PickleRefused, match="contains itself"):
        mail_from_pickle(mail_with("metadata", b"}q\x00" + text("again") + b"h\x00s"))
    with pytest.raises(PickleRefused, match="contains itself"):
        mail_from_pickle(mail_with("tags", b"]" * 100_000 + b"a" * 99_999))
    doubled = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (one, one, one + 1) for one in range(40))
    with pytest.raises(PickleRefused):
        mail_from_pickle(mail_with("tags", doubled))


def test_a_mail_of_a_projects_own_class_is_named() -> None:
    with pytest.raises(PickleRefused, match=r"test_pickled_mail\.OwnMail"):
        mail_from_pickle(pickle.dumps(OwnMail("x", "y", "a@example.com", ["b@example.com"])))
    attached = EmailMessage("x", "y", "a@example.com", ["b@example.com"])
    inner = StandardMessage()
    inner.add_alternative("x")
    attached.attachments.append(inner)
    with pytest.raises(PickleRefused, match="other parts"):
        mail_from_pickle(pickle.dumps(attached))
