"""What messages are found by, and finding them: newest first, and no more than a page of answers needs.

Each question is a range of one index, however many messages there are.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol
from uuid import UUID

from django.db.models import Q, QuerySet

from ..mime.addresses import comparable_address, split_stored_address
from ..models import Message, SearchKey
from ..models.transactions import database

#: The most messages that one search finds.
MOST_FOUND = 1000

# Of a long name, what begins with its later words is not looked for.
_MOST_WORDS = 6
# Of messages whose subjects are read one by one.
_NEWEST = 5_000
_LONGEST_KEY = 320
#: After every text that begins with what stands before it.
LAST = "\U0010ffff"

_HEX_ID = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?7[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}")


class Found(Protocol):
    """What of a message people may know: a :class:`.Message`, or what becomes one."""

    @property
    def id(self) -> UUID: ...
    @property
    def message_id(self) -> str: ...
    @property
    def to(self) -> Sequence[str]: ...
    @property
    def cc(self) -> Sequence[str]: ...
    @property
    def bcc(self) -> Sequence[str]: ...
    @property
    def about_name(self) -> str: ...


class _PlainLetters(dict[int, str]):
    """What of each character a name is found by, once it has been asked for: none has more than a few."""

    def __missing__(self, code: int) -> str:
        letters = (one for one in unicodedata.normalize("NFKD", chr(code)) if not unicodedata.combining(one))
        self[code] = plain = "".join(letters).casefold()
        return plain


_PLAIN_LETTERS = _PlainLetters()


def fold(text: str) -> str:
    """A name without case, accents and blanks that tell nothing."""
    # Without the table where it changes nothing but case.
    plain = text.lower() if text.isascii() else text.translate(_PLAIN_LETTERS)
    return " ".join(plain.split())


def first_address(recipients: Sequence[str]) -> str:
    """The value of :attr:`.Message.address`."""
    return comparable_address(recipients[0])[:_LONGEST_KEY] if recipients else ""


def has_search_keys(message: Found) -> bool:
    """Whether a message is found by more than its id and the address of its first recipient. Most are not."""
    recipients = (*message.to, *message.cc, *message.bcc)
    if len(recipients) != 1 or recipients[0].endswith(">"):
        return True
    return bool(message.about_name) or message.id.hex not in message.message_id


def search_keys(message: Found) -> list[str]:
    """What a message is found by beside its id and the address of its first recipient."""
    if not has_search_keys(message):
        return []
    addresses, names = [], [message.about_name]
    for recipient in (*message.to, *message.cc, *message.bcc):
        name, bare = split_stored_address(recipient)
        addresses.append(bare.lower())
        names.append(name)
    keys = {*addresses, *(key for name in names if name for key in _from_each_word(name))}
    if message.id.hex not in message.message_id:
        keys.add(message.message_id.strip("<> "))
    return sorted({key[:_LONGEST_KEY] for key in keys} - {*(address[:_LONGEST_KEY] for address in addresses[:1]), ""})


def _from_each_word(name: str) -> list[str]:
    words = fold(name).split()
    return [" ".join(words[start:]) for start in range(min(len(words), _MOST_WORDS))]


def find(text: str) -> list[UUID]:
    """The newest messages that somebody means who writes this: an id, a ``Message-ID``, an address or its beginning, or
    a name from one of its words on."""
    text = text.strip()
    if not text:
        return []
    if found := _HEX_ID.search(text.lower()):
        key = UUID(found[0])
        if Message.objects.using(database()).filter(pk=key).exists():
            return [key]
    terms = {comparable_address(text), text.strip("<> "), fold(text.strip("<> "))}
    found_ids: set[UUID] = set()
    for term in sorted(term[:_LONGEST_KEY] for term in terms if term):
        by_address = _beginning(Message.objects.using(database()), "address", term)
        found_ids.update(by_address.values_list("id", flat=True)[:MOST_FOUND])
        by_key = _beginning(SearchKey.objects.using(database()), "key", term)
        found_ids.update(by_key.values_list("message_id", flat=True)[:MOST_FOUND])
    return sorted(found_ids, reverse=True)[:MOST_FOUND]


def find_by_subject(text: str) -> list[UUID]:
    """Of the newest messages, those with this text in their subject; nothing is said of sensitive ones."""
    newest = list(Message.objects.using(database()).order_by("-id").values_list("id", flat=True)[:_NEWEST])
    if not newest:
        return []
    said = Q(subject__icontains=text.strip()) | Q(batch__subject__icontains=text.strip())
    messages = Message.objects.using(database()).filter(said, id__gte=newest[-1], sensitive=False)
    return list(messages.order_by("-id").values_list("id", flat=True)[:MOST_FOUND])


def _beginning(rows: QuerySet, column: str, term: str) -> QuerySet:  # type: ignore[type-arg]
    order = "id" if column == "address" else "message_id"
    exact = rows.filter(**{column: term})
    if "@" in term.strip("@") and exact.exists():
        return exact.order_by(f"-{order}")
    # In the order of the index: sorted by time, a beginning that many have would be read whole.
    return rows.filter(**{f"{column}__gte": term, f"{column}__lt": term + LAST}).order_by(column)
