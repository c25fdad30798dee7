"""Finding out which recipients of messages are on the suppression list: one question for all of them."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from ..mime.addresses import comparable_address
from ..models import Message
from . import Listed


def listed_recipients(messages: Iterable[Message]) -> dict[UUID, dict[str, str]]:
    """Who is to be left out: of each message that has such a one the addresses, as its envelope has them, and why.

    Recipients that have a copy of it, or were refused, are not looked at.
    """
    wanted = [
        (message, {recipient: comparable_address(recipient) for recipient in message.envelope}) for message in messages
    ]
    listed = Listed({address for _, addresses in wanted for address in addresses.values()})
    # Nearly always nobody is.
    if not listed:
        return {}
    found = {}
    for message, addresses in wanted:
        reasons = {
            recipient: why
            for recipient, address in addresses.items()
            if (why := listed.why(address, transactional=message.transactional, list_id=message.list_id)) is not None
        }
        if reasons:
            found[message.id] = reasons
    return found
