"""Recipients of a batch as callers give them, one at a time: checked, and in the form in which they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Any
from zoneinfo import ZoneInfo

from ..content import templates
from ..content.context import encode
from ..exceptions import InvalidOption, MailerError, NoRecipient
from ..mime.addresses import bare_address, normalise_address, normalise_addresses
from ..models import Batch, new_id
from ..outbox import Line
from ..sparkpost.options import metadata_of
from .arguments import language_of, timezone_of
from .fields import sending_domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """Who gets one of the mails of a batch, and what is different in it.

    Args:
        to: address, or addresses, in the ``To`` header of this one mail.
        context: added to the context of the batch, and stronger than that.
        cc: further recipients in the ``Cc`` header.
        bcc: further recipients in no header.
        language: language to render in; that of the batch where it is ``None`` or empty.
        timezone: time zone to render in; that of the batch where it is ``None``.
        attachments: in addition to those of the batch.
        metadata: added to the metadata of the batch, and stronger than that.
        key: what tells this mail from the others of a batch with a ``key`` of its own; where it is empty, its
            addresses do. At most 200 characters.
    """

    to: str | Sequence[str]
    context: Mapping[str, Any] | None = field(default=None, repr=False)
    cc: str | Sequence[str] = ()
    bcc: str | Sequence[str] = ()
    language: str | None = None
    timezone: str | ZoneInfo | None = None
    attachments: Sequence[Any] = field(default=(), repr=False)
    metadata: Mapping[str, Any] | None = None
    key: str = ""


class Reader:
    """Reads the recipients of one batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._domain = sending_domain({"from_email": batch.from_email})
        self._languages = {"": batch.language}
        self._zones: dict[str | ZoneInfo | None, str] = {None: batch.timezone}

    def read(self, given: Any) -> tuple[Line, Sequence[Any]]:
        """One mail of the batch, and its own attachments as they were given.

        Args:
            given: an address, an address with a context, or a :class:`Recipient`.

        Raises:
            MailerError: one of its subclasses, for what is wrong.
        """
        if isinstance(given, Recipient):
            return self._line(given), given.attachments
        context = None
        if isinstance(given, tuple) and len(given) == 2:
            given, context = given
        if isinstance(given, Mapping) or not (isinstance(given, str) or hasattr(given, "__html__")):
            raise InvalidOption(
                f"It is a {type(given).__name__}; give an address, (address, context) or a congressy_mailer.Recipient."
            )
        return self._written([normalise_address(given, "to")], context), ()

    def _line(self, given: Recipient) -> Line:
        to, cc, bcc = (
            normalise_addresses(addresses, name)
            for name, addresses in (("to", given.to), ("cc", given.cc), ("bcc", given.bcc))
        )
        if not (to or cc or bcc):
            raise NoRecipient("to, cc and bcc are all empty.")
        if not isinstance(given.key, str) or len(given.key) > 200:
            raise InvalidOption("key must be a text of at most 200 characters.")
        line = self._written(to, given.context, cc, bcc, given.key)
        return line._replace(
            language=self._language(given.language),
            timezone=self._timezone(given.timezone),
            metadata=self._metadata(given.metadata),
        )

    def _written(
        self,
        to: list[str],
        context: Mapping[str, Any] | None,
        cc: Sequence[str] = (),
        bcc: Sequence[str] = (),
        key: str = "",
    ) -> Line:
        batch = self._batch
        if context is not None and not batch.template:
            raise InvalidOption("It has a context, and the batch has no template.")
        encoded = encode(context, language=batch.language, sensitive=batch.sensitive) if context else {}
        identity = new_id()
        return Line(
            identity,
            f"<{identity.hex}@{self._domain}>",
            to,
            list(cc),
            list(bcc),
            encoded,
            batch.metadata,
            batch.language,
            batch.timezone,
            None if batch.key is None else _only_once(batch, key, (*to, *cc, *bcc)),
        )

    def _metadata(self, given: Mapping[str, Any] | None) -> dict[str, Any]:
        shared: dict[str, Any] = self._batch.metadata
        if given is None:
            return shared
        if not isinstance(given, Mapping):
            raise InvalidOption(f"metadata must be a dict, not {type(given).__name__}.")
        return metadata_of({**shared, **given})

    def _language(self, given: str | None) -> str:
        name = given or ""
        if name not in self._languages:
            language = language_of(name)
            if self._batch.template:
                templates.check(self._batch.template, subject_given=bool(self._batch.subject), language=language)
            self._languages[name] = language
        return self._languages[name]

    def _timezone(self, given: str | ZoneInfo | None) -> str:
        if given not in self._zones:
            self._zones[given] = timezone_of(given)
        return self._zones[given]


def _only_once(batch: Batch, key: str, addresses: Sequence[str]) -> str:
    """What a second message for the same would have in common with the first: the names may differ, or be left out."""
    what = f"key {key}" if key else "\n".join(["to", *(bare_address(address).lower() for address in addresses)])
    return f"{batch.id.hex}:{blake2s(what.encode(errors='replace'), digest_size=16).hexdigest()}"


def in_position(error: MailerError, position: int) -> MailerError:
    """The same error, saying which of the recipients it is about."""
    return type(error)(f"recipients[{position}]: {error}")
