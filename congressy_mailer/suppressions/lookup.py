"""Finding out which recipients of messages are on the suppression list: one question for all of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections

from ..mime.addresses import comparable_address
from ..models import Message
from ..models.erased import by_stored_form
from ..models.transactions import database
from .entries import _CHUNK, active
from .rules import Scope


def suppressed_recipients(messages: Iterable[Message]) -> dict[UUID, dict[str, str]]:
    """Who is to be left out: of each message that has such a one the addresses, as its envelope has them, and why.

    Recipients that have a copy of it, or were refused, are not looked at.
    """
    wanted = [
        (message, {recipient: comparable_address(recipient) for recipient in message.envelope}) for message in messages
    ]
    lookup = SuppressionLookup({address for _, addresses in wanted for address in addresses.values()})
    # Nearly always no recipient is.
    if not lookup:
        return {}
    found = {}
    for message, addresses in wanted:
        reasons = {
            recipient: reason
            for recipient, address in addresses.items()
            if (reason := lookup.reason_for(address, transactional=message.transactional, list_id=message.list_id))
            is not None
        }
        if reasons:
            found[message.id] = reasons
    return found


_REASON_FIELDS = ("address", "scope", "list_id", "source", "reason")


class _Reason(NamedTuple):
    scope: str
    list_id: str
    text: str


def _entries(addresses: list[str]) -> list[tuple[Any, ...]]:
    # To the next power of two, so that there are few statements. An address that is asked for twice is found once.
    asked = addresses + addresses[-1:] * ((1 << (len(addresses) - 1).bit_length()) - len(addresses))
    alias = database()
    with connections[alias].cursor() as cursor:
        cursor.execute(_statement(alias, len(asked)), asked)
        return list(cursor.fetchall())


@lru_cache(maxsize=64)
def _statement(alias: str, number: int) -> str:
    """What Django makes of the question about so many addresses: at each call that would cost more than the answer."""
    question = active().filter(address__in=[str(place) for place in range(number)]).order_by()
    sql, _ = question.values_list("created_at", *_REASON_FIELDS).query.get_compiler(alias).as_sql()
    return str(sql)


class SuppressionLookup:
    """What the suppression list has against some addresses: asked once, for all of them."""

    def __init__(self, addresses: Collection[str]) -> None:
        """
        Args:
            addresses: in the form in which they are compared.
        """
        self._reasons: dict[str, list[_Reason]] = {}
        known = by_stored_form(addresses)
        wanted = sorted(known)
        for start in range(0, len(wanted), _CHUNK):
            # Sorted here: it is a handful, and a database may take another index for the order's sake.
            for _, address, scope, list_id, source, reason in sorted(_entries(wanted[start : start + _CHUNK])):
                text = f"{source}: {reason}" if reason else source
                self._reasons.setdefault(known.get(address, address), []).append(_Reason(scope, list_id, text))

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def reason_for(self, address: str, *, transactional: bool, list_id: str = "") -> str | None:
        """What speaks against sending such a mail to one of the addresses; ``None``: nothing.

        Args:
            address: in the form in which addresses are compared.
            transactional: whether the mail is.
            list_id: the list that it belongs to, if any.
        """
        for reason in self._reasons.get(address, ()):
            if reason.scope == Scope.TRANSACTIONAL:
                applies = transactional
            elif reason.scope == Scope.NON_TRANSACTIONAL:
                applies = not transactional
            else:
                applies = not transactional and reason.list_id == list_id
            if applies:
                return reason.text
        return None


def suppressed_among(addresses: Collection[str], *, transactional: bool, list_id: str = "") -> set[str]:
    """Those of these addresses that are not to get such a mail.

    Args:
        addresses: in the form in which they are compared.
        transactional: whether the mail is.
        list_id: the list that it belongs to, if any.
    """
    lookup = SuppressionLookup(addresses)
    return {
        address
        for address in addresses
        if lookup.reason_for(address, transactional=transactional, list_id=list_id) is not None
    }
