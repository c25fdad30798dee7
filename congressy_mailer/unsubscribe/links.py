"""Signed unsubscribe links, one per message and recipient; they cannot be forged.

A link says by itself whose it is and which list it is about, and never ends: it must work for as long as somebody keeps
the mail, also when the message is long purged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from django.core.signing import BadSignature, Signer
from django.urls import NoReverseMatch, reverse

from ..conf import mailer_settings
from ..exceptions import ContentError, ContentNotReady
from ..mime.addresses import bare_address
from ..models import Message

# Its own, so that nothing else that the host signs is a link, and the other way round.
_SALT = "congressy_mailer.unsubscribe"

#: Names of the headers (RFC 2369 §3.2, RFC 8058 §3.1) ...
UNSUBSCRIBE, UNSUBSCRIBE_POST = "List-Unsubscribe", "List-Unsubscribe-Post"
#: ... and what the second one says, which comes back when somebody leaves.
ONE_CLICK = "List-Unsubscribe=One-Click"


@dataclass(frozen=True, slots=True)
class Link:
    """What a link says."""

    #: The message that it stands in.
    message: UUID
    #: Whose it is: ``local@domain``, as it was sent to.
    address: str
    #: The list that is left; empty: all mail that is not transactional.
    list_id: str


class BadLink(ValueError):
    """It is none that was signed here."""


def make_token(link: Link) -> str:
    """The link as part of a URL, signed with ``SECRET_KEY``."""
    return _signer().sign_object([link.message.hex, link.address, link.list_id])


def parse_token(token: str) -> Link:
    """What a link says, whose signature is one of ``SECRET_KEY`` or ``SECRET_KEY_FALLBACKS``.

    Raises:
        BadLink: it has no such signature.
    """
    try:
        message, address, list_id = _signer().unsign_object(token)
        return Link(UUID(message), address, list_id)
    except (BadSignature, ValueError, TypeError, AttributeError, KeyError):
        # What was signed by an older version may look otherwise.
        raise BadLink("The link is not one of ours, or not complete.") from None


def _signer() -> Signer:
    return Signer(salt=_SALT, sep=".")


def unsubscribe_url(message: Message) -> str:
    """Where the recipient of a message leaves what it belongs to.

    Raises:
        ContentError: the message has several recipients: one of them could follow the link of another.
        ContentNotReady: ``SITE_URL`` is not set, or the host's URLs do not have ours.
    """
    if len(message.recipients) != 1:
        raise ContentError(
            "An unsubscribe link is for one recipient, and this mail has several: send each a separate mail, with "
            "send_bulk()."
        )
    link = _url(message)
    if link is None:
        raise ContentNotReady(
            "An unsubscribe link needs CONGRESSY_MAILER['SITE_URL'], and "
            'path("mailer/", include("congressy_mailer.urls")) in the URLs.'
        )
    return link


def _url(message: Message) -> str | None:
    """The same; ``None`` where ``SITE_URL`` or our URLs are missing.

    Raises:
        ContentNotReady: the host's URLs cannot be loaded here.
    """
    site = mailer_settings().SITE_URL
    if site is None:
        return None
    link = Link(message.id, bare_address(message.recipients[0]), message.list_id)
    try:
        path = reverse("congressy_mailer:unsubscribe", args=[make_token(link)])
    except NoReverseMatch:
        return None
    except Exception as error:
        # Any error of the host's modules: another deployment may have them right.
        raise ContentNotReady(f"The host's URLs cannot be loaded: {type(error).__name__}: {error}") from error
    return site.rstrip("/") + path


def unsubscribe_headers(message: Message) -> Mapping[str, str]:
    """Headers by which mail programs offer to leave, as Gmail and Yahoo ask of mail that is not transactional.

    Returns:
        Empty for transactional mail, if the caller gave such a header, and if there can be no link.

    Raises:
        ContentNotReady: the host's URLs cannot be loaded here.
    """
    if message.transactional or len(message.recipients) != 1:
        return {}
    if any(name.lower() == UNSUBSCRIBE.lower() for name in message.headers):
        return {}
    link = _url(message)
    # Without one, checks congressy_mailer.W002 and W003 have said so.
    return {UNSUBSCRIBE: f"<{link}>", UNSUBSCRIBE_POST: ONE_CLICK} if link else {}
