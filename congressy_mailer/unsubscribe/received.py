"""What a received mail offers those who want to leave: reading its raw source, as a mail program shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from urllib.parse import urlsplit

from django.urls import Resolver404, resolve

from ..conf import mailer_settings
from .links import ONE_CLICK, UNSUBSCRIBE, UNSUBSCRIBE_POST, BadLink, Link, parse_token

_VIEW = "congressy_mailer:unsubscribe"
_URI = re.compile(r"<([^<>]*)>")
_WHITE_SPACE = re.compile(r"\s+")
_SIGNED_FIELDS = re.compile(r"(?:\A|;)\s*h\s*=([^;]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UnsubscribeOffer:
    """What the headers of a mail offer."""

    #: The URIs of its ``List-Unsubscribe``, in order (RFC 2369 §3.2).
    uris: tuple[str, ...]
    #: What our own link among them says; ``None``: none is ours.
    own: Link | None
    #: Whether mail programs may leave in one click (RFC 8058 §3.1): an https URI, and the header that says so.
    one_click: bool
    #: Whether a DKIM signature covers the headers, as RFC 8058 §4 asks; ``None``: the mail has no signature.
    signed: bool | None


def read_offer(source: bytes) -> UnsubscribeOffer:
    """What a mail offers.

    Args:
        source: the mail as it was received, with its headers.
    """
    mail = message_from_bytes(source)
    values = [str(value) for value in mail.get_all(UNSUBSCRIBE, [])]
    uris = tuple(_WHITE_SPACE.sub("", uri) for value in values for uri in _URI.findall(value))
    post = [_WHITE_SPACE.sub("", str(value)).lower() for value in mail.get_all(UNSUBSCRIBE_POST, [])]
    one_click = post == [ONE_CLICK.lower()] and any(uri.lower().startswith("https:") for uri in uris)
    own = next((link for uri in uris if (link := _own_link(uri)) is not None), None)
    return UnsubscribeOffer(uris, own, one_click, _is_signed(mail))


def _own_link(uri: str) -> Link | None:
    site = mailer_settings().SITE_URL
    try:
        parts = urlsplit(uri)
        if site is None or parts.hostname != urlsplit(site).hostname:
            return None
        match = resolve(parts.path.removeprefix(urlsplit(site).path.rstrip("/")))
        return parse_token(match.kwargs["token"]) if match.view_name == _VIEW else None
    except (BadLink, Resolver404, ValueError):
        return None


def _is_signed(mail: Message) -> bool | None:
    signatures = mail.get_all("DKIM-Signature")
    if not signatures:
        return None
    wanted = {name.lower() for name in (UNSUBSCRIBE, UNSUBSCRIBE_POST) if name in mail}
    return any(wanted <= _signed_fields(str(signature)) for signature in signatures)


def _signed_fields(signature: str) -> set[str]:
    found = _SIGNED_FIELDS.search(signature)
    return {name.strip().lower() for name in found[1].split(":")} if found else set()
