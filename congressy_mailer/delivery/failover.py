"""By which mail backends a message may go: its own, and for one that names none those of ``FAILOVER`` as well.

A message that may have been taken by one of them stays with it. Another would send a second copy, and know nothing of
the first.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..conf import mailer_settings
from ..models import Message


def routes(using: str, messages: Iterable[Message] = ()) -> list[str]:
    """Aliases of mail backends, in the order in which they are tried.

    Args:
        using: what messages name; empty: the default one.
        messages: those that are to be sent; one may be bound to a backend that ``FAILOVER`` no longer names.
    """
    if using:
        return [using]
    bound = [message.route for message in messages if is_bound(message)]
    return list(dict.fromkeys(["", *mailer_settings().FAILOVER, *bound]))


def is_bound(message: Message) -> bool:
    """Whether it stays with the backend that it went over last: that one may have it already."""
    return message.crashes > 0


def may_use(message: Message, route: str) -> bool:
    """Whether a message may go over this backend.

    Args:
        message: as it was claimed.
        route: an alias out of :func:`routes`.
    """
    return bool(message.using) or not is_bound(message) or message.route == route
