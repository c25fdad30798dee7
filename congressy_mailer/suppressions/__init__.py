"""Addresses that are not to be written to: who is, who comes, who goes.

What is on the list does not depend on the order in which it was said: of two reasons of our own the earlier one stays,
before one that only SparkPost's list has; and what happened before somebody took an address away does not bring it
back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from django.db import IntegrityError, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from ..conf import SUPPRESSION_RULES, mailer_settings
from ..exceptions import InvalidOption
from ..mime.addresses import comparable_address, normalise_address
from ..models import Suppression
from ..outbox import database
from ..outbox.rows import without_conflicts
from ..signals import address_suppressed
from ..submission.arguments import list_of

Scope = Suppression.Scope
Source = Suppression.Source

# Addresses of one question: every database takes so many.
_CHUNK = 500

#: Within this time so many soft bounces as ``SUPPRESSION["soft"]`` says count as a hard one.
SOFT_BOUNCES_WITHIN = timedelta(days=30)

_KEPT = timedelta(days=1)

# Others put the same addresses there at the same time.
_TRIES = 5


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
    #: When what it counts began, where it counts several things; ``None``: it is one.
    since: datetime | None = field(default=None, compare=False)

    def stands(self, cleared_at: datetime | None) -> bool:
        """Whether all of it came after the address was last taken off; what is for good always stands."""
        return cleared_at is None or (self.since or self.at) > cleared_at or _is_for_good(self)


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
        Whether something is on the list now that was not.

    Raises:
        InvalidAddress: it is not one address.
        InvalidOption: ``scope`` is none, or stands beside a ``list_id``; the list is not in ``LISTS``; ``at`` has no
            time zone.
    """
    list_id = list_of(list_id, transactional=False)
    if at is not None and timezone.is_naive(at):
        raise InvalidOption("at must have a time zone.")
    when = at or timezone.now()
    compared = comparable_address(normalise_address(address, "address"))
    added = add(
        Entry(at=when, source=Source.MANUAL, reason=reason, address=compared, scope=one, list_id=list_id)
        for one in scopes_of(scope, list_id)
    )
    return bool(added)


def unsuppress(address: str, *, scope: Scope | str | None = None, list_id: str = "") -> int:
    """Take an address off the suppression list, whatever has put it there: it gets mail again.

    SparkPost's list, where it has the address too, is told when the two are next brought together. What SparkPost's
    compliance team put there stays.

    Args:
        address: as for :func:`suppress`.
        scope: mail that it gets again; all of it, that of lists as well, where it is ``None``.
        list_id: only mail of this list; goes without ``scope``.

    Returns:
        How many entries there were.

    Raises:
        InvalidAddress: it is not one address.
        InvalidOption: ``scope`` is none, or stands beside a ``list_id``.
    """
    compared = comparable_address(normalise_address(address, "address"))
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
    compared = comparable_address(normalise_address(address, "address"))
    return bool(suppressed([compared], transactional=transactional, list_id=list_id))


def scopes_of(scope: Scope | str | None, list_id: str) -> tuple[Scope, ...]:
    """The scopes that somebody means who names one, a list, or neither, which is all mail.

    Raises:
        InvalidOption: there is no such scope, or they do not go together.
    """
    if list_id:
        if scope not in (None, Scope.LIST):
            raise InvalidOption("Give a scope or a list_id, not both: mail of a list is never transactional.")
        return (Scope.LIST,)
    if scope is None:
        return (Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL)
    if scope not in (Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL):
        raise InvalidOption(f"scope must be 'transactional' or 'non_transactional', not {scope!r}.")
    return (Scope(scope),)


def scopes(rule: str) -> tuple[Scope, ...]:
    """Which mail an address is to get no more, once something has happened to one.

    Args:
        rule: a key of ``SUPPRESSION``, other than ``"soft"``.
    """
    what = _rule(rule)
    if what is None:
        return ()
    return (Scope.TRANSACTIONAL, Scope.NON_TRANSACTIONAL) if what == "all" else (Scope(what),)


def soft_bounces() -> int | None:
    """How many soft bounces count as a hard one; ``None``: they do not."""
    limit: int | None = _rule("soft")
    return limit


def _rule(name: str) -> Any:
    return {**SUPPRESSION_RULES, **mailer_settings().SUPPRESSION}[name]


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


def active() -> QuerySet[Suppression]:
    """What is on the list now."""
    return Suppression.objects.using(database()).filter(removed_at=None)


def add(entries: Iterable[Entry]) -> list[Suppression]:
    """Put addresses on the list, as far as they are not on it.

    Returns:
        What was not on it before.
    """
    given = list(entries)
    for attempt in range(_TRIES):
        try:
            return _add(given)
        except IntegrityError:
            # Somebody else has put one of them there at this moment.
            if attempt == _TRIES - 1:
                raise
    raise AssertionError("unreachable")


@without_conflicts
def _add(entries: Iterable[Entry]) -> list[Suppression]:
    said: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in sorted(entries):
        said.setdefault((entry.address, entry.scope, entry.list_id), []).append(entry)
    known = _known({address for address, _, _ in said})
    added: list[Suppression] = []
    created: list[Suppression] = []
    for key, reasons in sorted(said.items()):
        row = known.get(key)
        # Of what is said of the same address, the first counts that nobody has taken back.
        cleared_at = row.cleared_at if row is not None else None
        standing = [one for one in reasons if one.stands(cleared_at)]
        if not standing:
            continue
        entry = min(standing, key=_order)
        if row is None:
            row = Suppression(
                address=entry.address, scope=entry.scope, list_id=entry.list_id, source=entry.source,
                reason=entry.reason, created_at=entry.at,
            )  # fmt: skip
            created.append(row)
            added.append(row)
        elif row.removed_at is not None:
            _say_again(row, entry)
            added.append(row)
        elif _goes_before(entry, row):
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


def _is_for_good(entry: Entry) -> bool:
    return entry.source == Source.COMPLIANCE


# What is there only because SparkPost has it goes when SparkPost has it no more. Were it to hide that somebody has
# left, that would be forgotten with it.
_BEFORE_ALL, _OURS, _AFTER_ALL = range(3)
_PLACES = {Source.COMPLIANCE: _BEFORE_ALL, Source.SPARKPOST: _AFTER_ALL}


def _order(entry: Entry) -> tuple[object, ...]:
    """What the compliance team says, then the earliest of our own, then what only SparkPost says."""
    return _PLACES.get(entry.source, _OURS), entry.at, entry.source, entry.reason


def _goes_before(entry: Entry, row: Suppression) -> bool:
    source = Source(row.source)
    return _order(entry) < (_PLACES.get(source, _OURS), row.created_at, source, row.reason)


def _say_again(row: Suppression, entry: Entry) -> None:
    row.source, row.reason, row.created_at = entry.source, entry.reason, entry.at
    if row.removed_at is not None:
        row.removed_at = row.synced_at = None
        row.refusal = ""
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
    now = timezone.now()
    return rows.update(removed_at=now, cleared_at=now, synced_at=None, refusal="")


@without_conflicts
def purge() -> int:
    """Forget what was taken off a day ago and SparkPost's list knows of, or where there is no key to tell it with.

    Until then it is kept for what is heard of late: an event that happened before, or a listing that is old. Where soft
    bounces are counted it is kept for as long as one counts: those before it are not to bring the address back.

    Returns:
        How many entries, some at a time; none when nothing is left.
    """
    long_ago = timezone.now() - (_KEPT if soft_bounces() is None else SOFT_BOUNCES_WITHIN)
    old = Q(synced_at__lt=long_ago) | ~Q(refusal="")
    if mailer_settings().SPARKPOST_API_KEY is None:
        old |= Q(synced_at=None)
    entries = Suppression.objects.using(database())
    ids = list(entries.filter(old, removed_at__lt=long_ago).order_by("id").values_list("id", flat=True)[:_CHUNK])
    # Unless somebody has put one there again meanwhile.
    entries.filter(old, removed_at__lt=long_ago, id__in=ids).delete()
    return len(ids)
