"""What this thread is doing with mail, so that mail which is sent meanwhile makes no circle.

A backend behind the queue may hand its mail on to the default backend, which is the queue: each pass would store a new
message, and none would leave. A logger may mail what goes wrong with mail.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..exceptions import TransportUnavailable
from ..mime.outgoing import OutgoingMail
from ..mime.parts import field_value

#: How often a mail may be queued anew out of the backend that it was handed to: a copy of it for somebody else, sent on
#: purpose, is once.
MAX_HOPS = 3

_handed_over: ContextVar[OutgoingMail | None] = ContextVar("congressy_mailer_handed_over", default=None)
_delivering: ContextVar[bool] = ContextVar("congressy_mailer_delivering", default=False)


@contextmanager
def handing_over(mail: OutgoingMail) -> Iterator[None]:
    """While a mail is in the hands of a backend that is not known to send by itself."""
    token = _handed_over.set(mail)
    try:
        yield
    finally:
        _handed_over.reset(token)


def hops_of(mail: object, wire: bytes) -> int:
    """How often a mail that is to be queued now has come out of the backend that it was handed to.

    Args:
        mail: it.
        wire: its bytes.

    Raises:
        TransportUnavailable: it is the one that is being handed over, or has gone round too often.
    """
    source = _handed_over.get()
    if source is None:
        return 0
    hops = source.hops + 1
    same = isinstance(mail, OutgoingMail) or field_value(source.wire, "Message-ID") == field_value(wire, "Message-ID")
    if same or hops >= MAX_HOPS:
        raise TransportUnavailable(
            "The mail backend behind the queue gives its mail back to the queue: nothing is sent. Let the OPTIONS of "
            "congressy_mailer.backends.EmailBackend name a backend that sends."
        )
    return hops


@contextmanager
def delivering() -> Iterator[None]:
    """While a worker delivers: what is logged now makes no mail."""
    token = _delivering.set(True)
    try:
        yield
    finally:
        _delivering.reset(token)


def is_delivering() -> bool:
    """Whether this thread is delivering mail, or sending the server's own."""
    return _delivering.get()
