"""SparkPost's suppression list as its API shows it (API reference, "Suppression List").

An entry there is an address with a type, transactional or not, and perhaps one ``list_id``. Entries of subaccounts,
which have lists of their own, are not looked at.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ..conf import LIST_ID, mailer_settings
from ..exceptions import InvalidAddress, SparkPostError
from ..mime.addresses import comparable_address, normalise_address
from ..models import Suppression
from .client import Client

#: Entries of one PUT, at the most.
MAX_ENTRIES = 10_000

# Of up to 10,000: so many that an answer comes quickly and is quickly stored.
_PER_PAGE = 1000

# Enough to know by what it was; nothing says how much it takes.
_MAX_DESCRIPTION = 500

Scope = Suppression.Scope
Source = Suppression.Source

_MANUALLY_ADDED = "Manually Added"
_SOURCES = {
    "Compliance": Source.COMPLIANCE,
    "List Unsubscribe": Source.SPARKPOST_UNSUBSCRIBE,
    "Unsubscribe Link": Source.SPARKPOST_UNSUBSCRIBE,
}
# What we put there says so by its description.
_OWN_SOURCES = {source.value: source for source in set(Source) - {Source.SPARKPOST, *_SOURCES.values()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteEntry:
    """One of its entries."""

    #: In the form in which addresses are compared.
    address: str
    #: Which mail it is about.
    scope: Scope
    #: Which list, where it is one.
    list_id: str
    #: What has put it there; one of our own where SparkPost shows what we put there.
    source: Source
    #: Why, for people.
    reason: str
    #: When it last changed, by SparkPost's clock.
    updated_at: datetime

    @property
    def key(self) -> tuple[str, str, str]:
        """What is there once."""
        return self.address, self.scope, self.list_id


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a listing."""

    entries: list[RemoteEntry]
    #: What to ask for next; empty: this was the last.
    next_cursor: str


def first_cursor(since: datetime | None) -> str:
    """What to ask for to list what has changed since then; everything where it is ``None``."""
    query = {"cursor": "initial", "per_page": str(_PER_PAGE)}
    if since is not None:
        query["from"] = f"{since.astimezone(UTC):%Y-%m-%dT%H:%M:%S+0000}"
    return urlencode(query)


def fetch_page(client: Client, cursor: str) -> Page:
    """One page of a listing.

    Args:
        client: of SparkPost's API.
        cursor: from :func:`first_cursor`, or from the page before.

    Raises:
        SparkPostError: SparkPost says no, which it also does to a cursor that is too old, or cannot be asked.
    """
    resource = client.suppression_list
    answer = resource.request("GET", resource.uri, params=parse_qsl(cursor), full_response=True)
    results = _results(answer)
    next_cursor = _next_cursor(answer.get("links"))
    # Its link to a next page is ignored: an empty page is the last one.
    return Page(_parse_entries(results), next_cursor if results and next_cursor != cursor else "")


def entries_of(client: Client, address: str) -> list[RemoteEntry]:
    """What is there of one address, up to this moment.

    Raises:
        SparkPostError: SparkPost says no, or cannot be asked.
    """
    try:
        answer = client.suppression_list.request("GET", _uri_of(client, address), full_response=True)
    except SparkPostError as error:
        if error.status == 404:
            return []
        raise
    return _parse_entries(_results(answer))


def put(client: Client, rows: Iterable[Suppression]) -> None:
    """Put addresses there.

    Args:
        client: of SparkPost's API.
        rows: at most :data:`MAX_ENTRIES`.

    Raises:
        SparkPostError: SparkPost says no, or cannot be asked.
    """
    resource = client.suppression_list
    entries = [
        {
            "recipient": row.address,
            "type": _type_of(row),
            **({"list_id": row.list_id} if row.list_id else {}),
            "description": f"{row.source}: {row.reason}"[:_MAX_DESCRIPTION] if row.reason else row.source,
        }
        # Of several reasons one is sent: SparkPost has one entry.
        for row in {(row.address, row.scope, row.list_id): row for row in rows}.values()
    ]
    resource.request("PUT", f"{resource.uri}/", data=json.dumps({"recipients": entries}))


def delete(client: Client, entry: RemoteEntry) -> None:
    """Take one entry of an address off.

    The list is named in the query, and named empty for the account's own entry: without it SparkPost would delete the
    entries of all lists (API reference, "Delete a Suppression").

    Raises:
        SparkPostError: SparkPost says no, or cannot be asked.
    """
    try:
        client.suppression_list.request(
            "DELETE",
            _uri_of(client, entry.address),
            params={"list_id": entry.list_id},
            data=json.dumps({"type": _type_of(entry)}),
        )
    except SparkPostError as error:
        if error.status != 404:
            raise


def _type_of(entry: Suppression | RemoteEntry) -> str:
    return "transactional" if entry.scope == Scope.TRANSACTIONAL else "non_transactional"


def _uri_of(client: Client, address: str) -> str:
    return f"{client.suppression_list.uri}/{quote(address, safe='@')}"


def _results(answer: Any) -> list[Any]:
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list):
        raise SparkPostError("SparkPost's suppression list was asked for, and something else came.")
    return results


def _next_cursor(links: Any) -> str:
    """What is asked for by the link to the next page; never whom: that is the host with the key."""
    for link in links if isinstance(links, list) else []:
        if isinstance(link, Mapping) and link.get("rel") == "next" and isinstance(link.get("href"), str):
            return urlsplit(link["href"]).query
    return ""


def _parse_entries(results: Iterable[Any]) -> list[RemoteEntry]:
    return [entry for one in results if (entry := _parse_entry(one)) is not None]


def _parse_entry(result: Any) -> RemoteEntry | None:
    """One entry; ``None`` for what says nothing about mail of ours."""
    if not isinstance(result, Mapping) or result.get("subaccount_id"):
        return None
    list_id = str(result.get("list_id") or "")
    if list_id and not _may_be_own_list(list_id):
        return None
    match result.get("type"), bool(list_id):
        case "transactional", False:
            scope = Scope.TRANSACTIONAL
        case "non_transactional", False:
            scope = Scope.NON_TRANSACTIONAL
        case "non_transactional", True:
            scope = Scope.LIST
        case _:
            return None
    try:
        address = comparable_address(normalise_address(result.get("recipient"), "recipient"))
    except InvalidAddress:
        return None
    source, reason = _source_of(str(result.get("source") or ""), str(result.get("description") or ""))
    return RemoteEntry(
        address=address,
        scope=scope,
        list_id=list_id,
        source=source,
        # No database takes it.
        reason=reason.replace("\0", ""),
        updated_at=_time(result.get("updated")) or _time(result.get("created")) or timezone.now(),
    )


def _source_of(name: str, description: str) -> tuple[Source, str]:
    """The source of an entry in our words, and why it is there."""
    own, _, reason = description.partition(": ")
    if name == _MANUALLY_ADDED and own in _OWN_SOURCES:
        return _OWN_SOURCES[own], reason
    return _SOURCES.get(name, Source.SPARKPOST), ": ".join(filter(None, (name, description)))


def _may_be_own_list(list_id: str) -> bool:
    """Whether a list of ours may be called so; some databases take one that differs in case for another's."""
    alike = [one for one in mailer_settings().LISTS if one.lower() == list_id.lower()]
    return LIST_ID.fullmatch(list_id) is not None and (not alike or list_id in alike)


def _time(value: Any) -> datetime | None:
    try:
        moment = parse_datetime(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return timezone.make_aware(moment, UTC) if moment is not None and timezone.is_naive(moment) else moment
