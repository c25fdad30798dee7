"""Telling the host of what became of messages, once that is recorded."""

from __future__ import annotations

import logging

from django.dispatch import Signal

from ..exceptions import ContentNotReady
from ..models import Message, State
from ..signals import deferred, failed, held, sent
from .host_code import contained

logger = logging.getLogger("congressy_mailer.delivery")

_SIGNALS: dict[str, Signal] = {
    State.SENT: sent,
    State.DEFERRED: deferred,
    State.FAILED: failed,
    State.HELD: held,
}


def announce(message: Message) -> None:
    """Send the signal of the state that a message has come to. What a receiver raises is logged, and no more.

    Args:
        message: its new state is set.
    """
    signal = _SIGNALS.get(message.state)
    if signal is None or not signal.has_listeners(Message):
        return
    try:
        with contained():
            signal.send_robust(Message, message=message)
    except ContentNotReady:
        logger.warning("A receiver of signals left a transaction of the database open.")
