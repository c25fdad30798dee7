"""What a recipient wants to get, as the suppression list has it."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from django.utils import timezone

from .. import suppressions
from ..conf import mailer_settings
from ..mime.addresses import comparable_address
from ..suppressions.entries import Entry
from ..suppressions.rules import Scope, Source


def unsubscribe(address: str, list_id: str, reason: str) -> None:
    """Put an address on the suppression list for one list, or for all mail that is not transactional.

    Args:
        address: as it was sent to.
        list_id: the list; empty for all of it.
        reason: for people.
    """
    _add(address, [list_id], reason)


def resubscribe(address: str, list_id: str) -> None:
    """Take back that the recipient left, a list or everything. What else speaks against writing to them remains."""
    _remove_unsubscriptions(address, dict.fromkeys(["", list_id]))


def choose_lists(address: str, wanted: Collection[str], reason: str) -> None:
    """Have a recipient get the lists that are wanted, and none of the others; without any, no news at all.

    Args:
        address: as it was sent to.
        wanted: ids of ``LISTS``.
        reason: for people.
    """
    lists = mailer_settings().LISTS
    if not any(list_id in wanted for list_id in lists):
        unsubscribe(address, "", reason)
        return
    _remove_unsubscriptions(address, ["", *(list_id for list_id in lists if list_id in wanted)])
    _add(address, [list_id for list_id in lists if list_id not in wanted], reason)


def unsubscribed_lists(address: str, lists: Iterable[str]) -> set[str]:
    """Those of these lists that an address gets no mail of; an empty one stands for all mail that is on none."""
    listed = suppressions.active().filter(address=comparable_address(address))
    scopes = set(listed.values_list("scope", "list_id"))
    if (Scope.NON_TRANSACTIONAL, "") in scopes:
        return set(lists)
    return {list_id for list_id in lists if list_id and (Scope.LIST, list_id) in scopes}


def _add(address: str, lists: Iterable[str], reason: str) -> None:
    now = timezone.now()
    suppressions.add(
        Entry(
            at=now, source=Source.UNSUBSCRIBE, reason=reason, address=comparable_address(address),
            scope=_scope(list_id), list_id=list_id,
        )
        for list_id in lists
    )  # fmt: skip


def _remove_unsubscriptions(address: str, lists: Iterable[str]) -> None:
    compared = comparable_address(address)
    for list_id in lists:
        # Also where none is known: one from before may be heard of later, by SparkPost's events.
        suppressions.remove(compared, scope=_scope(list_id), list_id=list_id, source=Source.UNSUBSCRIBE)


def _scope(list_id: str) -> Scope:
    return Scope.LIST if list_id else Scope.NON_TRANSACTIONAL
