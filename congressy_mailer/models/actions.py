"""What a message and a batch can be asked for. The rooms above do it; :mod:`congressy_mailer.apps` registers them."""

from __future__ import annotations

from typing import Any, Protocol

from .progress import Progress


class Actions(Protocol):
    """What the methods of :class:`.Message` and :class:`.Batch` call."""

    def cancel(self, message: Any) -> bool:
        """See :func:`congressy_mailer.mail.cancel`."""

    def retry(self, message: Any) -> None:
        """See :func:`congressy_mailer.mail.retry`."""

    def resend(self, message: Any) -> None:
        """See :func:`congressy_mailer.mail.resend`."""

    def progress(self, batch: Any) -> Progress:
        """See :func:`congressy_mailer.bulk.progress`."""

    def cancel_batch(self, batch: Any) -> int:
        """See :func:`congressy_mailer.bulk.cancel`."""


_registered: list[Actions] = []


def register(actions: Actions) -> None:
    """Have the models call these from now on."""
    _registered[:] = [actions]


def get_actions() -> Actions:
    """The registered implementation."""
    return _registered[0]
