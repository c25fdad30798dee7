"""Bytes from a server are its replies, in whatever pieces they come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from congressy_mailer.replies import Reply
from congressy_mailer.transports.smtp.reply_parser import InvalidReply, ReplyParser


def replies_in(*pieces: bytes) -> list[Reply]:
    parser = ReplyParser()
    found = []
    for piece in pieces:
        parser.feed(piece)
        while (reply := parser.next()) is not None:
            found.append(reply)
    return found


@pytest.mark.parametrize(
    ("said", "replies"),
    [
        (b"250 2.0.0 OK 95/6F-30607-EA5D4555\r\n", [Reply(250, "2.0.0 OK 95/6F-30607-EA5D4555")]),
        (b"250-one\r\n250-\r\n250 two\r\n354\r\n", [Reply(250, "one two"), Reply(354, "")]),
        (b"250 no CR\n", [Reply(250, "no CR")]),
        (b"550 n\xe3o\r\n", [Reply(550, "n\ufffdo")]),
        (b"250 2.0.0 OK", []),
        (b"250-2.0.0 OK\r\n", []),
        (b"", []),
    ],
)
def test_replies(said: bytes, replies: list[Reply]) -> None:
    assert replies_in(said) == replies


@given(st.lists(st.binary()), st.data())
def test_pieces_do_not_matter(texts: list[bytes], data: st.DataObject) -> None:
    said = b"".join(b"250 " + text.replace(b"\n", b"") + b"\r\n" for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(said)))))
    pieces = [said[start:end] for start, end in zip([0, *cuts], [*cuts, len(said)], strict=True)]
    assert replies_in(*pieces) == replies_in(said)
    assert len(replies_in(said)) == len(texts)


@pytest.mark.parametrize(
    "said",
    [
        b"hello\r\n",
        b"2505 what\r\n",
        b"25\r\n",
        b"\r\n",
        b"999 x\r\n",
        b"250_x\r\n",
        b"250-one\r\n550 two\r\n",
        b"x" * 65537,
        b"250 " + b"x" * 70_000 + b"\r\n",
        b"250-and more\r\n" * 6000,
    ],
)
def test_what_is_no_reply(said: bytes) -> None:
    with pytest.raises(InvalidReply):
        replies_in(said)
