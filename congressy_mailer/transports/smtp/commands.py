"""The commands of an SMTP transaction, and which replies fit them (RFC 5321)."""

from __future__ import annotations

from ...replies import Reply
from .stream import ConnectionLost, Flow, Stream

RSET = b"RSET\r\n"
DATA = b"DATA\r\n"

# What a command is answered with when it has worked (RFC 5321 §4.2.1), in hundreds.
DONE = 2
GO_AHEAD = 3

#: "Service not available, closing transmission channel" (RFC 5321 §4.2.3).
CLOSING = 421


def mail_from(sender: str) -> bytes:
    """The command that begins a mail."""
    return f"MAIL FROM:<{sender}>\r\n".encode()


def rcpt_to(address: str) -> bytes:
    """The command that names a recipient."""
    return f"RCPT TO:<{address}>\r\n".encode()


def is_refusal(reply: Reply) -> bool:
    """Whether the server says no, for now or for good."""
    return reply.code is not None and 400 <= reply.code < 600


def read_reply(stream: Stream, expected: int, patience: float | None = None) -> Flow[Reply]:
    """The next reply, which is a no or of the expected kind.

    Args:
        stream: on which it comes.
        expected: :data:`DONE` or :data:`GO_AHEAD`.
        patience: as :meth:`.Stream.read` has it.

    Raises:
        ConnectionLost: there is none.
    """
    reply = yield from stream.read(patience)
    assert reply.code is not None
    if reply.code == CLOSING:
        # RFC 5321 §3.8: replies after it concern no mail.
        stream.end(reply)
    elif not is_refusal(reply) and reply.code // 100 != expected:
        raise give_up(stream, reply)
    return reply


def give_up(stream: Stream, reply: Reply) -> ConnectionLost:
    """End a connection for a reply that fits no command; returns the error to raise."""
    unexpected = Reply(None, f"The server's reply makes no sense here: {reply}")
    stream.end(unexpected)
    return ConnectionLost(unexpected)
