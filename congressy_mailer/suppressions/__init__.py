"""Addresses that are not to be written to: who is, who comes, who goes.

What is on the list does not depend on the order in which it was said: each source keeps its earliest reason, and what
happened before somebody took an address off does not bring it back, however late it is heard of.
"""

from __future__ import annotations

from datetime import datetime

from django.utils import timezone

from ..exceptions import InvalidOption
from .entries import Entry, active, add, purge, remove
from .lists import check_list_id
from .rules import SOFT_BOUNCES_WITHIN, Scope, Source, scopes, scopes_of, soft_bounce_limit


def suppress(
    address: str, *, scope: Scope | str | None = None, list_id: str = "", reason: str = "", at: datetime | None = None
) -> bool:
    """Put an address on the suppression list by hand: mail for it is left out from this moment on.

    Args:
        address: with or without a name. Neither case nor the way an international domain is written makes a difference.
        scope: ``"transactional"`` or ``"non_transactional"`` mail; all mail where it is ``None``.
        list_id: only mail of this list; goes without ``scope``.
        reason: for people.
        at: when what speaks against it happened; now where it is ``None``. What happened before somebody last took
            the address off does not bring it back.

    Returns:
        Whether mail is stopped now that was not. Otherwise the reason is kept beside those that stop it already.

    Raises:
        InvalidAddress: it is not one address.
        InvalidOption: ``scope`` is none, or stands beside a ``list_id``; the list is not in ``LISTS``; ``at`` has no
            time zone.
    """
    list_id = check_list_id(list_id, transactional=False)
    if at is not None and timezone.is_naive(at):
        raise InvalidOption("at must have a time zone.")
    when = at or timezone.now()
    compared = comparable(address)
    added = add(
        Entry(at=when, source=Source.MANUAL, reason=reason, address=compared, scope=one, list_id=list_id)
        for one in scopes_of(scope, list_id)
    )
    return bool(added)


def unsuppress(address: str, *, scope: Scope | str | None = None, list_id: str = "") -> int:
    """Take an address off the suppression list, for every reason that is there: it gets mail again.

    SparkPost's list, where it has the address too, is told when the two are next brought together. A bounce or a
    complaint from before this moment that is heard of later counts no more. What SparkPost's compliance team put there
    stays.

    Args:
        address: as for :func:`suppress`.
        scope: mail that it gets again; all of it, that of lists as well, where it is ``None``.
        list_id: only mail of this list; goes without ``scope``.

    Returns:
        How many reasons there were: one for each scope, list and source.

    Raises:
        InvalidAddress: it is not one address.
        InvalidOption: ``scope`` is none, or stands beside a ``list_id``.
    """
    compared = comparable(address)
    if scope is None and not list_id:
        return remove(compared)
    return sum(remove(compared, scope=one, list_id=list_id) for one in scopes_of(scope, list_id))


def is_suppressed(address: str, *, transactional: bool = True, list_id: str = "") -> bool:
    """Whether an address would be left out of a mail.

    Args:
        address: as for :func:`suppress`.
        transactional: whether the mail is, as for ``send_mail()``.
        list_id: the list that it belongs to, if any.

    Raises:
        InvalidAddress: it is not one address.
    """
    compared = comparable(address)
    from .lookup import suppressed_among

    return bool(suppressed_among([compared], transactional=transactional, list_id=list_id))


__all__ = [
    "SOFT_BOUNCES_WITHIN",
    "Entry",
    "Scope",
    "Source",
    "active",
    "add",
    "comparable",
    "is_suppressed",
    "purge",
    "remove",
    "scopes",
    "scopes_of",
    "soft_bounce_limit",
    "suppress",
    "unsuppress",
]


def comparable(address: str, name: str = "address") -> str:
    """An address in the form in which addresses are compared.

    Args:
        address: one address, as people write it.
        name: where it was given, for the error.

    Raises:
        InvalidAddress: it is not one.
    """
    # The admin imports this package in every web process, and the grammar of addresses takes time to compile.
    from ..mime.addresses import comparable_address, normalise_address

    return comparable_address(normalise_address(address, name))
