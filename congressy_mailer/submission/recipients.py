"""Recipients of a batch as callers give them, one at a time: checked, and in the form in which they are stored."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2s
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Model

from ..content import templates
from ..content.context import encode
from ..exceptions import InvalidOption, MailerError, NoRecipient
from ..mime.addresses import comparable_address, normalise_address, normalise_addresses
from ..models import Batch, new_id
from ..models.about import about_fields
from ..outbox import BatchMessage
from ..outbox.search import first_address
from ..sparkpost.options import check_metadata
from .arguments import clean_alternatives, clean_language, clean_timezone
from .fields import sending_domain


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipient:
    """A recipient of a batch, and what differs in this mail.

    Args:
        to: address, or addresses, in the ``To`` header of this mail.
        context: merged into the batch's context; takes precedence.
        cc: further recipients in the ``Cc`` header.
        bcc: further recipients in no header.
        language: language to render in; if ``None`` or empty, the batch's.
        timezone: time zone to render in; if ``None``, the batch's.
        attachments: attachments in addition to the batch's.
        metadata: merged into the batch's metadata; takes precedence.
        key: identifies this mail in a batch that has a ``key``; if empty, the addresses identify it. At most 200
            characters.
        alternatives: alternatives in addition to the batch's, such as this person's invitation.
        about: the object of the host's that this mail is about, as for :func:`congressy_mailer.send_mail`.
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
    alternatives: Sequence[tuple[str, str]] = field(default=(), repr=False)
    about: Model | None = field(default=None, repr=False)


class RecipientParser:
    """Reads the recipients of one batch."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._domain = sending_domain(batch.from_email)
        self._languages = {"": batch.language}
        self._zones: dict[str | ZoneInfo | None, str] = {None: batch.timezone}

    def parse(self, recipient: Any) -> tuple[BatchMessage, Sequence[Any]]:
        """One mail of the batch, and its own attachments as they were given.

        Args:
            recipient: an address, an address with a context, or a :class:`Recipient`.

        Raises:
            MailerError: one of its subclasses, for what is wrong.
        """
        if isinstance(recipient, Recipient):
            return self._parse_recipient(recipient), recipient.attachments
        context = None
        if isinstance(recipient, tuple) and len(recipient) == 2:
            recipient, context = recipient
        if isinstance(recipient, Mapping) or not (isinstance(recipient, str) or hasattr(recipient, "__html__")):
            raise InvalidOption(
                f"It is a {type(recipient).__name__}; give an address, (address, context) or a "
                "congressy_mailer.Recipient."
            )
        return self._build_message([normalise_address(recipient, "to")], context), ()

    def _parse_recipient(self, recipient: Recipient) -> BatchMessage:
        to, cc, bcc = (
            normalise_addresses(addresses, name)
            for name, addresses in (("to", recipient.to), ("cc", recipient.cc), ("bcc", recipient.bcc))
        )
        if not (to or cc or bcc):
            raise NoRecipient("to, cc and bcc are all empty.")
        if not isinstance(recipient.key, str) or len(recipient.key) > 200:
            raise InvalidOption("key must be a text of at most 200 characters.")
        message = self._build_message(to, recipient.context, cc, bcc, recipient.key)
        return message._replace(
            language=self._language(recipient.language),
            timezone=self._timezone(recipient.timezone),
            metadata=self._metadata(recipient.metadata),
            alternatives=clean_alternatives(recipient.alternatives, sensitive=self._batch.sensitive),
            **about_fields(recipient.about)._asdict(),
        )

    def _build_message(
        self,
        to: list[str],
        context: Mapping[str, Any] | None,
        cc: Sequence[str] = (),
        bcc: Sequence[str] = (),
        key: str = "",
    ) -> BatchMessage:
        batch = self._batch
        if context is not None and not batch.template:
            raise InvalidOption("It has a context, and the batch has no template.")
        encoded = encode(context, language=batch.language, sensitive=batch.sensitive) if context else {}
        message_key = new_id()
        return BatchMessage(
            message_key,
            f"<{message_key.hex}@{self._domain}>",
            to,
            list(cc),
            list(bcc),
            encoded,
            batch.metadata,
            batch.language,
            batch.timezone,
            None if batch.key is None else _idempotency_key(batch, key, (*to, *cc, *bcc)),
            [],
            first_address((*to, *cc, *bcc)),
        )

    def _metadata(self, value: Mapping[str, Any] | None) -> dict[str, Any]:
        shared: dict[str, Any] = self._batch.metadata
        if value is None:
            return shared
        if not isinstance(value, Mapping):
            raise InvalidOption(f"metadata must be a dict, not {type(value).__name__}.")
        return check_metadata({**shared, **value})

    def _language(self, value: str | None) -> str:
        name = value or ""
        if name not in self._languages:
            language = clean_language(name)
            if self._batch.template:
                templates.check(self._batch.template, subject_given=bool(self._batch.subject), language=language)
            self._languages[name] = language
        return self._languages[name]

    def _timezone(self, value: str | ZoneInfo | None) -> str:
        if value not in self._zones:
            self._zones[value] = clean_timezone(value)
        return self._zones[value]


def _idempotency_key(batch: Batch, key: str, addresses: Sequence[str]) -> str:
    """What a second message for the same would have in common with the first: the names may differ, or be left out."""
    source = f"key {key}" if key else "\n".join(["to", *map(comparable_address, addresses)])
    digest = blake2s(batch.id.bytes + source.encode(errors="replace"), digest_size=16).digest()
    # As short as may be, since PostgreSQL logs it six times on a mail's way, in the row and in its index. The time in
    # which the batch's id begins has the keys of a batch lie together there.
    return batch.id.hex[:8] + urlsafe_b64encode(digest)[:22].decode()


def at_index(error: MailerError, index: int) -> MailerError:
    """The same error, saying which of the recipients it is about."""
    return type(error)(f"recipients[{index}]: {error}")
