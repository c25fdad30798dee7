"""Mail in eight bits, as Django before 6.0 writes it, in seven."""

from __future__ import annotations

import email
import email.policy
from email.charset import Charset
from email.message import Message
from email.mime.application import MIMEApplication
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from congressy_mailer.mime import seven_bits
from congressy_mailer.mime.seven_bits import flatten, in_seven_bits
from congressy_mailer.mime.verification import check_as_built
from tests.support.fuzzing import examples

EIGHT_BIT = Charset("utf-8")
EIGHT_BIT.body_encoding = None

#: What could be taken for something else: delimiters, heads, other encodings, ends of lines and of texts.
TEXTS = st.lists(
    st.sampled_from(
        ["é", "Olá", "", "--", "--b", "--b--", "Content-Transfer-Encoding: 8bit", "\n", "\n\n", " ", "=C3", "From x"]
    )
    | st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=5),
    max_size=8,
).map("".join)


def text(content: str, kind: str = "plain") -> MIMEText:
    part = MIMEText("", kind)
    del part["Content-Transfer-Encoding"]
    part.set_payload(content, EIGHT_BIT)
    return part


def multipart(parts: list[Message]) -> MIMEMultipart:
    return MIMEMultipart("mixed", boundary="b", _subparts=parts)


MAILS = st.recursive(
    TEXTS.map(text) | TEXTS.map(lambda content: text(content, "html")) | st.binary().map(MIMEApplication),
    lambda parts: (
        st.lists(parts, min_size=1, max_size=3).map(lambda found: MIMEMultipart("alternative", _subparts=found))
        | parts.map(MIMEMessage)
    ),
    max_leaves=5,
)


def leaves(content: bytes) -> list[tuple[str, bytes]]:
    found = email.message_from_bytes(content, policy=email.policy.compat32)
    return [
        (part.get_content_type(), part.get_payload(decode=True))
        for part in found.walk()
        if not part.is_multipart()
    ]  # fmt: skip


@pytest.mark.fuzz
@pytest.mark.once
@settings(max_examples=examples(200), deadline=None)
@given(MAILS)
def test_nothing_but_the_encoding_changes(mail: Message) -> None:
    mail["Subject"] = "Inscrição"
    content = flatten(mail)
    try:
        check_as_built(content, mail)
    except ValueError:
        # A text that has the delimiter in it is refused before.
        return
    converted = in_seven_bits(content, mail)
    assert converted.isascii()
    assert leaves(converted) == leaves(content)
    assert max(map(len, converted.split(b"\r\n"))) <= max(76, *map(len, content.split(b"\r\n")))


@pytest.mark.once
def test_texts_are_encoded_where_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_back(*arguments: object, **options: object) -> Message:
        raise AssertionError("all of it was read back")

    mail = multipart([text("Olá,\n\nAté lá"), text("<p>Olá</p>", "html"), MIMEApplication(b"\0\xff")])
    mail["Subject"] = "Inscrição"
    content = flatten(mail)
    monkeypatch.setattr(seven_bits.email, "message_from_bytes", read_back)
    converted = in_seven_bits(content, mail)
    monkeypatch.undo()
    assert converted.isascii()
    assert leaves(converted) == leaves(content)
    assert converted.split(b"\r\n\r\n")[0] == content.split(b"\r\n\r\n")[0]


@pytest.mark.once
@pytest.mark.parametrize(
    "mail", [MIMEMessage(text("é")), multipart([MIMEMessage(text("é"))])], ids=["a mail in it", "a mail in a part"]
)
def test_what_is_less_clear_is_read_back(mail: Message) -> None:
    content = flatten(mail)
    converted = in_seven_bits(content, mail)
    assert converted.isascii()
    assert leaves(converted) == leaves(content)
