"""SparkPost's own suppression list (API reference, "Suppression List")."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from .msys_header import address_of

TYPES = ("transactional", "non_transactional")
MANUALLY_ADDED = "Manually Added"
COMPLIANCE = "Compliance"
#: What may have put an entry there.
SOURCES = ("Spam Complaint", "List Unsubscribe", "Bounce Rule", "Unsubscribe Link", MANUALLY_ADDED, COMPLIANCE)
#: Entries of one PUT, and of one page of a search.
MAX_ENTRIES = 10_000
_DEFAULT_PAGE_SIZE = 1000

Key = tuple[str, str, str]


class ListError(ValueError):
    """The list refuses; the text is SparkPost's message."""


@dataclass(frozen=True, kw_only=True)
class ListEntry:
    """One address that is not to be written to."""

    #: In lower case.
    recipient: str
    #: One of :data:`TYPES`.
    type: str
    #: Only mail of this list; empty: all of it.
    list_id: str = ""
    #: One of :data:`SOURCES`.
    source: str
    description: str = ""
    created: datetime
    #: When it was last changed.
    updated: datetime

    @property
    def key(self) -> Key:
        """What there is only one of."""
        return self.recipient, self.type, self.list_id

    def as_json(self) -> dict[str, Any]:
        """As the API writes it."""
        written = {
            "recipient": self.recipient,
            "type": self.type,
            "source": self.source,
            "description": self.description,
            "created": self.created.isoformat(timespec="seconds"),
            "updated": self.updated.isoformat(timespec="seconds"),
            self.type: True,
        }
        return {**written, "list_id": self.list_id} if self.list_id else written


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a search asks for; what is empty does not matter."""

    since: datetime | None = None
    until: datetime | None = None
    domain: str = ""
    types: Sequence[str] = ()
    sources: Sequence[str] = ()
    description: str = ""

    def matches(self, entry: ListEntry) -> bool:
        """Whether this is one of those. Times are those of the last change."""
        return (
            (self.since is None or entry.updated >= self.since)
            and (self.until is None or entry.updated <= self.until)
            and (not self.domain or entry.recipient.endswith(f"@{self.domain.lower()}"))
            and (not self.types or entry.type in self.types)
            and (not self.sources or entry.source in self.sources)
            and (not self.description or self.description.lower() in entry.description.lower())
        )


class SuppressionList:
    """The list. Safe to use from several threads."""

    def __init__(self) -> None:
        self._entries: dict[Key, ListEntry] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[ListEntry]:
        with self._lock:
            return iter(sorted(self._entries.values(), key=lambda entry: entry.key))

    def add(
        self,
        recipient: str,
        types: Iterable[str] = TYPES,
        *,
        source: str = MANUALLY_ADDED,
        description: str = "",
        list_id: str = "",
    ) -> None:
        """Put an address there, or change what is said of it. What Compliance put there stays as it is."""
        now = datetime.now(UTC)
        with self._lock:
            for type_ in types:
                entry = ListEntry(
                    recipient=recipient.lower(), type=type_, list_id=list_id, source=source, description=description,
                    created=now, updated=now,
                )  # fmt: skip
                known = self._entries.get(entry.key)
                if known is None:
                    self._entries[entry.key] = entry
                elif known.source != COMPLIANCE:
                    self._entries[entry.key] = replace(entry, created=known.created)

    def entries_of(self, recipient: str) -> list[ListEntry]:
        """What is there of one address."""
        return [entry for entry in self if entry.recipient == recipient.lower()]

    def source_of(self, recipient: str, type_: str) -> str | None:
        """The entry that suppresses mail of that type to this address, for any list; ``None``: there is none."""
        with self._lock:
            entry = self._entries.get((recipient.lower(), type_, ""))
            return entry.source if entry else None

    def remove(self, recipient: str, types: Iterable[str] = TYPES, list_id: str | None = None) -> None:
        """Take an address off.

        Args:
            recipient: it.
            types: of which entries.
            list_id: of which list; empty, the account's own entry; ``None``, the entries of all lists, too.

        Raises:
            KeyError: it is not there.
            ListError: Compliance put it there.
        """
        wanted = set(types)
        with self._lock:
            found = [
                entry
                for entry in self._entries.values()
                if entry.recipient == recipient.lower()
                and entry.type in wanted
                and (list_id is None or entry.list_id == list_id)
            ]
            if not found:
                raise KeyError(recipient)
            if any(entry.source == COMPLIANCE for entry in found):
                raise ListError("Recipient could not be removed - Compliance")
            for entry in found:
                del self._entries[entry.key]

    def put(self, value: Any) -> None:
        """Insert or update what a PUT has in ``recipients``; of an address that is there twice, the first counts.

        Raises:
            ListError: something is wrong with it; then nothing of it is taken.
        """
        if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
            raise ListError("recipients must be a list of objects that is not empty")
        if len(value) > MAX_ENTRIES:
            raise ListError(f"PUT body contains more than {MAX_ENTRIES} recipients")
        wrong = [str(one.get("recipient", one.get("email"))) for one in value if not _recipient(one)]
        if wrong:
            raise ListError(f"PUT body contains {len(wrong)} invalid or malformed recipient(s): {', '.join(wrong)}")
        wanted: dict[Key, dict[str, Any]] = {}
        for one in value:
            for type_ in types_of(one):
                wanted.setdefault((_recipient(one).lower(), type_, str(one.get("list_id") or "")), one)
        for (recipient, type_, list_id), one in wanted.items():
            self.add(recipient, [type_], description=str(one.get("description") or ""), list_id=list_id)

    def page(self, search: Search, *, after: str, size: int = _DEFAULT_PAGE_SIZE) -> tuple[list[ListEntry], str, int]:
        """Some of what a search finds.

        Args:
            search: what to look for.
            after: a cursor; ``"initial"`` for the beginning.
            size: how many at the most.

        Returns:
            The entries; the cursor for those that follow, or an empty text; and how many there are in all.

        Raises:
            ListError: that is no cursor of ours.
        """
        found = [entry for entry in self if search.matches(entry)]
        key = _decode_cursor(after)
        rest = [entry for entry in found if key is None or entry.key > key]
        page = rest[:size]
        return page, _encode_cursor(page[-1].key) if len(rest) > size else "", len(found)


def types_of(value: dict[str, Any]) -> list[str]:
    """Which types an entry is about: ``type``, or the booleans that it has replaced.

    Raises:
        ListError: none that there is.
    """
    found = [value["type"]] if "type" in value else [type_ for type_ in TYPES if value.get(type_) is True]
    if not found or any(type_ not in TYPES for type_ in found):
        raise ListError("Type must be one of: 'transactional', 'non_transactional'")
    return found


def _recipient(value: dict[str, Any]) -> str:
    return address_of(value.get("recipient", value.get("email")))


def _encode_cursor(key: Key) -> str:
    return base64.urlsafe_b64encode("\0".join(key).encode()).decode()


def _decode_cursor(cursor: str) -> Key | None:
    if cursor == "initial":
        return None
    try:
        recipient, type_, list_id = base64.urlsafe_b64decode(cursor.encode()).decode().split("\0")
    except (binascii.Error, ValueError):
        raise ListError("cursor is invalid") from None
    return recipient, type_, list_id
