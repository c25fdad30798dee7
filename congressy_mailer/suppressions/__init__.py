"""The suppression list: addresses that get no mail.

Its content does not depend on the order in which reports arrive: each source keeps its earliest reason, and events from
before the removal of an address do not add it again, however late they are reported.
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
    """Add an address to the suppression list by hand: it gets no mail from now on.

    Args:
        address: with or without a name. Case, and the spelling of an international domain, do not matter.
        scope: ``"transactional"`` or ``"non_transactional"`` mail; ``None``: all mail.
        list_id: only mail of this list; not together with ``scope``.
        reason: text for people.
        at: when the reason arose; ``None``: now. A reason from before the last removal of the address has no effect.

    Returns:
        Whether mail is stopped that was not stopped before. If not, the reason is kept beside the earlier ones.

    Raises:
        InvalidAddress: ``address`` is not a single address.
        InvalidOption: ``scope`` is unknown, or given together with ``list_id``; the list is not in ``LISTS``; ``at``
            has no time zone.
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
    """Remove an address from the suppression list, with all reasons: it gets mail again.

    The next synchronisation removes it from SparkPost's list too. A bounce or complaint from before this moment that is
    reported later has no effect. Entries of SparkPost's compliance team stay.

    Args:
        address: as for :func:`suppress`.
        scope: kind of mail that it gets again; ``None``: all mail, that of lists as well.
        list_id: only mail of this list; not together with ``scope``.

    Returns:
        The number of removed reasons, one for each scope, list and source.

    Raises:
        InvalidAddress: ``address`` is not a single address.
        InvalidOption: ``scope`` is unknown, or given together with ``list_id``.
    """
    compared = comparable(address)
    if scope is None and not list_id:
        return remove(compared)
    return sum(remove(compared, scope=one, list_id=list_id) for one in scopes_of(scope, list_id))


def is_suppressed(address: str, *, transactional: bool = True, list_id: str = "") -> bool:
    """Whether a mail to an address would be suppressed.

    Args:
        address: as for :func:`suppress`.
        transactional: whether the mail is transactional, as for ``send_mail()``.
        list_id: the list that the mail belongs to, if any.

    Raises:
        InvalidAddress: ``address`` is not a single address.
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
