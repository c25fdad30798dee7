"""Finding out which recipients of messages are on the suppression list: one question for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple
from uuid import UUID

from ..mime.addresses import comparable_address
from ..models import Message
from .entries import _CHUNK, active
from .rules import Scope


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


_WHY = ("address", "scope", "list_id", "source", "reason")


class _Reason(NamedTuple):
    scope: str
    list_id: str
    told: str


class Listed:
    """What the suppression list has against some addresses: asked once, for all of them."""

    def __init__(self, addresses: Collection[str]) -> None:
        """
        Args:
            addresses: in the form in which they are compared.
        """
        self._reasons: dict[str, list[_Reason]] = {}
        wanted = sorted(addresses)
        for start in range(0, len(wanted), _CHUNK):
            found = active().filter(address__in=wanted[start : start + _CHUNK]).values_list("created_at", *_WHY)
            # Sorted here: it is a handful, and a database may take another index for the order's sake.
            for _, address, scope, list_id, source, reason in sorted(found):
                told = f"{source}: {reason}" if reason else source
                self._reasons.setdefault(address, []).append(_Reason(scope, list_id, told))

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def why(self, address: str, *, transactional: bool, list_id: str = "") -> str | None:
        """What speaks against sending such a mail to one of the addresses; ``None``: nothing.

        Args:
            address: in the form in which addresses are compared.
            transactional: whether the mail is.
            list_id: the list that it belongs to, if any.
        """
        for reason in self._reasons.get(address, ()):
            if reason.scope == Scope.TRANSACTIONAL:
                speaks = transactional
            elif reason.scope == Scope.NON_TRANSACTIONAL:
                speaks = not transactional
            else:
                speaks = not transactional and reason.list_id == list_id
            if speaks:
                return reason.told
        return None


def suppressed(addresses: Collection[str], *, transactional: bool, list_id: str = "") -> set[str]:
    """Those of these addresses that are not to get such a mail.

    Args:
        addresses: in the form in which they are compared.
        transactional: whether the mail is.
        list_id: the list that it belongs to, if any.
    """
    listed = Listed(addresses)
    return {
        address
        for address in addresses
        if listed.why(address, transactional=transactional, list_id=list_id) is not None
    }
