"""Addresses that are not to be written to: who is, who comes, who goes.

What is on the list does not depend on the order in which it was said: of two reasons the earlier one stays, and what
happened before somebody took an address away does not bring it back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from .conf import SUPPRESSION_RULES, mailer_settings
from .models import Suppression
from .outbox import database
from .outbox.rows import without_conflicts
from .signals import address_suppressed

Scope = Suppression.Scope
Source = Suppression.Source

# Addresses of one question: every database takes so many.
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Entry:
    """A reason not to write to an address."""

    #: When it came up.
    at: datetime
    #: What it was.
    source: Source
    #: For people.
    reason: str = ""
    #: In the form in which addresses are compared.
    address: str
    #: Which mail it is about.
    scope: Scope
    #: Which list, where it is one.
    list_id: str = ""


def scopes(rule: str) -> tuple[Scope, ...]:
    """Which mail an address is to get no more, once something has happened to one.

    Args:
        rule: a key of ``SUPPRESSION``, other than ``"soft"``.
    """
    what = {**SUPPRESSION_RULES, **mailer_settings().SUPPRESSION}[rule]
    if what is None:
        return ()
    return (Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL) if what == "all" else (Scope(what),)


def suppressed(addresses: Collection[str], *, transactional: bool, list_id: str = "") -> set[str]:
    """Those of these addresses that are not to get such a mail.

    Args:
        addresses: in the form in which they are compared.
        transactional: whether the mail is.
        list_id: the list that it belongs to, if any.
    """
    if transactional:
        about = Q(scope=Scope.TRANSACTIONAL)
    else:
        about = Q(scope=Scope.NON_TRANSACTIONAL)
        if list_id:
            about |= Q(scope=Scope.LIST, list_id=list_id)
    found: set[str] = set()
    wanted = sorted(addresses)
    for start in range(0, len(wanted), _CHUNK):
        listed = active().filter(about, address__in=wanted[start : start + _CHUNK])
        found.update(listed.values_list("address", flat=True))
    return found


def active() -> QuerySet[Suppression]:
    """What is on the list now."""
    return Suppression.objects.using(database()).filter(removed_at=None)


@without_conflicts
def add(entries: Iterable[Entry]) -> list[Suppression]:
    """Put addresses on the list, as far as they are not on it.

    Returns:
        What was not on it before.
    """
    # Of what is said of the same address, the earliest counts.
    wanted: dict[tuple[str, str, str], Entry] = {}
    for entry in sorted(entries):
        wanted.setdefault((entry.address, entry.scope, entry.list_id), entry)
    known = _known({address for address, _, _ in wanted})
    added: list[Suppression] = []
    created: list[Suppression] = []
    for key, entry in sorted(wanted.items()):
        row = known.get(key)
        if row is None:
            row = Suppression(
                address=entry.address, scope=entry.scope, list_id=entry.list_id, source=entry.source,
                reason=entry.reason, created_at=entry.at,
            )  # fmt: skip
            created.append(row)
            added.append(row)
        elif row.removed_at is not None:
            if entry.at <= row.removed_at:
                continue
            _say_again(row, entry)
            added.append(row)
        elif _is_earlier(entry, row):
            _say_again(row, entry)
    Suppression.objects.using(database()).bulk_create(created)
    if added:
        transaction.on_commit(partial(_tell, added), using=database(), robust=True)
    return added


def _known(addresses: Iterable[str]) -> dict[tuple[str, str, str], Suppression]:
    wanted = sorted(addresses)
    known = {}
    for start in range(0, len(wanted), _CHUNK):
        rows = Suppression.objects.using(database()).filter(address__in=wanted[start : start + _CHUNK])
        for row in rows.order_by("id").select_for_update():
            known[row.address, row.scope, row.list_id] = row
    return known


def _is_earlier(entry: Entry, row: Suppression) -> bool:
    if row.source == Source.COMPLIANCE:
        return False
    return (entry.at, entry.source, entry.reason) < (row.created_at, row.source, row.reason)


def _say_again(row: Suppression, entry: Entry) -> None:
    row.source, row.reason, row.created_at = entry.source, entry.reason, entry.at
    if row.removed_at is not None:
        row.removed_at = row.synced_at = None
    row.save(using=database())


def _tell(added: Sequence[Suppression]) -> None:
    for row in added:
        address_suppressed.send_robust(
            Suppression, address=row.address, scope=row.scope, source=row.source, list_id=row.list_id,
            reason=row.reason,
        )  # fmt: skip


@without_conflicts
def remove(address: str, *, scope: Scope | None = None, list_id: str | None = None) -> int:
    """Take an address off the list. What SparkPost's compliance team put there stays.

    Args:
        address: in the form in which addresses are compared.
        scope: which mail it is to get again; all of it where it is ``None``.
        list_id: only mail of this list.

    Returns:
        How many entries there were.
    """
    rows = active().filter(address=address).exclude(source=Source.COMPLIANCE)
    if scope is not None:
        rows = rows.filter(scope=scope)
    if list_id is not None:
        rows = rows.filter(list_id=list_id)
    # Kept until SparkPost's list, which has it, is told.
    return rows.update(removed_at=timezone.now(), synced_at=None)
