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

_COMPLIANCE = "Compliance"

Scope = Suppression.Scope


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteEntry:
    """One of its entries."""

    #: In the form in which addresses are compared.
    address: str
    #: Which mail it is about.
    scope: Scope
    #: Which list, where it is one.
    list_id: str
    #: Put there by SparkPost's compliance team: nobody else may change it.
    compliance: bool
    #: What has put it there, and why.
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
    # Whatever it says: nothing more comes from where nothing came.
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
            **_type_of(row),
            "description": f"{row.source}: {row.reason}"[:_MAX_DESCRIPTION] if row.reason else row.source,
        }
        for row in rows
    ]
    resource.request("PUT", f"{resource.uri}/", data=json.dumps({"recipients": entries}))


def delete(client: Client, row: Suppression) -> None:
    """Take an address off.

    Raises:
        SparkPostError: SparkPost says no, or cannot be asked.
    """
    try:
        client.suppression_list.request("DELETE", _uri_of(client, row.address), data=json.dumps(_type_of(row)))
    except SparkPostError as error:
        if error.status != 404:
            raise


def _type_of(row: Suppression) -> dict[str, str]:
    if row.scope == Scope.TRANSACTIONAL:
        return {"type": "transactional"}
    list_part = {"list_id": row.list_id} if row.list_id else {}
    return {"type": "non_transactional", **list_part}


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
    source, description = str(result.get("source") or ""), str(result.get("description") or "")
    return RemoteEntry(
        address=address,
        scope=scope,
        list_id=list_id,
        compliance=source == _COMPLIANCE,
        # No database takes it.
        reason=": ".join(filter(None, (source, description))).replace("\0", ""),
        updated_at=_time(result.get("updated")) or _time(result.get("created")) or timezone.now(),
    )


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
