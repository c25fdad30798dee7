"""A pickled mail of Django's classes → the mail, field by field: a field that is not of its type is an error."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping, Sequence
from email import _header_value_parser, headerregistry, policy
from email.message import MIMEPart
from email.mime.base import MIMEBase
from typing import Any

from django.core.mail import EmailMultiAlternatives
from django.utils import translation

from ..conf import mailer_settings
from ..mime.parts import HAS_MODERN_EMAIL
from ..submission.anymail_attributes import ANYMAIL_ATTRIBUTES
from .pickle_reader import Global, Instance, PickleRefused, read_pickle

_MAILS = frozenset({
    Global("django.core.mail.message", "EmailMessage"),
    Global("django.core.mail.message", "EmailMultiAlternatives"),
    Global("anymail.message", "AnymailMessage"),
})  # fmt: skip
_ATTACHMENT = Global("django.core.mail.message", "EmailAttachment")
_ALTERNATIVE = Global("django.core.mail.message", "EmailAlternative")
_SAFE_TEXT = Global("django.utils.safestring", "SafeString")
_LAZY = Global("django.utils.functional", "_lazy_proxy_unpickle")
# By how many texts each of them is given.
_TRANSLATIONS: Mapping[Global, tuple[int, Callable[..., str]]] = {
    Global("django.utils.translation", "gettext"): (1, translation.gettext),
    Global("django.utils.translation", "pgettext"): (2, translation.pgettext),
}
_PARTS = frozenset({
    Global("email.mime.base", "MIMEBase"),
    Global("email.mime.application", "MIMEApplication"),
    Global("email.mime.audio", "MIMEAudio"),
    Global("email.mime.image", "MIMEImage"),
    Global("email.mime.text", "MIMEText"),
    Global("email.message", "MIMEPart"),
    Global("email.message", "EmailMessage"),
    Global("email.message", "Message"),
})  # fmt: skip
_CHARSET = Global("email.charset", "Charset")
_HEADER = Global("email.headerregistry", "_reconstruct_header")
_UNSET = Global("anymail.utils", "UNSET")


def _classes_of(module: Any) -> frozenset[Global]:
    return frozenset(
        Global(module.__name__, name)
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    )


#: What a pickled mail may name. Nothing of it is looked up by these names.
ADMITTED = frozenset({
    *_MAILS, *_PARTS, *_TRANSLATIONS, _ATTACHMENT, _ALTERNATIVE, _SAFE_TEXT, _LAZY, _CHARSET, _HEADER, _UNSET,
    Global("builtins", "str"),
    Global("anymail.message", "AnymailStatus"),
    # The connection that it was queued over.
    Global("mailer.backend", "DbBackend"),
    # How a part is written, and what was read of its headers.
    Global("email._policybase", "Compat32"),
    Global("email.policy", "EmailPolicy"),
    *_classes_of(headerregistry),
    *_classes_of(_header_value_parser),
})  # fmt: skip

_SUBTYPE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,60}")
_FOLD = re.compile(r"\r?\n(?=[ \t])")
# Of values that are no mail's content: more is no mail's.
_MAX_VALUES = 10_000
_MAX_DEPTH = 20


def mail_from_pickle(content: bytes, further_attributes: Sequence[str] = ()) -> EmailMultiAlternatives:
    """The mail. Its connection, and attributes that no backend is known to read, are left out.

    Args:
        content: the pickle of an ``EmailMessage``, an ``EmailMultiAlternatives`` or an ``AnymailMessage``.
        further_attributes: names of attributes that are kept beside django-anymail's.

    Raises:
        PickleRefused: it is none, is damaged, or names something that is not in :data:`ADMITTED`; a class of the
            project's is such, whose own code would have to be run.
    """
    pickled = read_pickle(content, ADMITTED)
    if not isinstance(pickled, Instance) or pickled.kind not in _MAILS or not isinstance(pickled.state, dict):
        raise PickleRefused("it is no mail")
    return _Fields(pickled.state).mail(further_attributes)


class _Fields:
    """The attributes that the mail had."""

    def __init__(self, state: Mapping[str, Any]) -> None:
        self._state = state
        # A pickle may name one text many times.
        self._room = mailer_settings().MAX_ATTACHMENT_BYTES

    def mail(self, further_attributes: Sequence[str]) -> EmailMultiAlternatives:
        mail = EmailMultiAlternatives(
            self._text("subject"),
            self._text("body"),
            self._text("from_email"),
            self._texts("to"),
            cc=self._texts("cc"),
            bcc=self._texts("bcc"),
            reply_to=self._texts("reply_to"),
            headers=self._headers(),
        )
        for content, mimetype in self._tuples("alternatives", _ALTERNATIVE, 2):
            mail.attach_alternative(self._content(content), _text(mimetype, "alternatives"))
        for attachment in self._list("attachments"):
            self._attach(mail, attachment)
        self._set_forms(mail)
        for name in (*ANYMAIL_ATTRIBUTES, *further_attributes):
            if name in self._state and self._state[name] != _UNSET:
                setattr(mail, name, _Plain().copy(self._state[name], name))
        return mail

    def _text(self, name: str) -> str:
        return _text(self._state.get(name, ""), name)

    def _list(self, name: str) -> list[Any]:
        values = self._state.get(name) or []
        if not isinstance(values, list | tuple):
            raise PickleRefused(f"its {name} is no list")
        if len(values) > _MAX_VALUES:
            raise PickleRefused(f"its {name} has more than {_MAX_VALUES:,} entries")
        return list(values)

    def _texts(self, name: str) -> list[str]:
        return [_text(value, name) for value in self._list(name)]

    def _tuples(self, name: str, kind: Global, length: int) -> list[tuple[Any, ...]]:
        return [_tuple(value, name, kind, length) for value in self._list(name)]

    def _headers(self) -> dict[str, str]:
        headers = self._state.get("extra_headers") or {}
        if not isinstance(headers, dict):
            raise PickleRefused("its headers are no dict")
        return {
            name: str(value) if type(value) is int else _text(value, f"header {name}")
            for name, value in headers.items()
        }

    def _content(self, value: Any) -> Any:
        content = value if isinstance(value, bytes) else _text(value, "attachments")
        self._room -= len(content)
        if self._room < 0:
            limit = mailer_settings().MAX_ATTACHMENT_BYTES
            raise PickleRefused(f"its attachments are larger than MAX_ATTACHMENT_BYTES together, {limit:,} bytes")
        return content

    def _attach(self, mail: EmailMultiAlternatives, attachment: Any) -> None:
        if isinstance(attachment, Instance) and attachment.kind in _PARTS:
            mail.attach(self._part(attachment))
            return
        filename, content, mimetype = _tuple(attachment, "attachments", _ATTACHMENT, 3)
        mail.attach(
            None if filename is None else _text(filename, "attachments"),
            self._content(content),
            None if mimetype is None else _text(mimetype, "attachments"),
        )

    def _part(self, pickled: Instance) -> Any:
        state = pickled.state if isinstance(pickled.state, dict) else {}
        payload, headers = state.get("_payload"), state.get("_headers")
        if not isinstance(payload, str) or not isinstance(headers, list) or len(headers) > _MAX_VALUES:
            raise PickleRefused("an attached part is empty, or holds other parts")
        self._content(payload)
        fields = [_header(*_tuple(header, "attachments", _ATTACHMENT, 2)) for header in headers]
        part: Any = MIMEPart(policy.default) if HAS_MODERN_EMAIL else MIMEBase("application", "octet-stream")
        for name in tuple(part):
            del part[name]
        for name, value in fields:
            part[name] = value
        part.set_payload(payload)
        return part

    def _set_forms(self, mail: EmailMultiAlternatives) -> None:
        subtype = self._state.get("content_subtype", "plain")
        if not isinstance(subtype, str) or not _SUBTYPE.fullmatch(subtype):
            raise PickleRefused("its content_subtype is no media type of text")
        mail.content_subtype = subtype
        if not HAS_MODERN_EMAIL and self._state.get("mixed_subtype") == "related":
            mail.mixed_subtype = "related"  # type: ignore[attr-defined]
        encoding = self._state.get("encoding")
        if isinstance(encoding, Instance) and encoding.kind == _CHARSET and isinstance(encoding.state, dict):
            encoding = encoding.state.get("input_charset")
        if encoding is not None:
            mail.encoding = _charset(encoding)


def _tuple(value: Any, name: str, kind: Global, length: int) -> tuple[Any, ...]:
    """A tuple of so many, also where it is one with names."""
    values = value.arguments if isinstance(value, Instance) and value.kind == kind else value
    if not isinstance(values, tuple | list) or len(values) != length:
        raise PickleRefused(f"its {name} are not as Django has them")
    return tuple(values)


def _text(value: Any, name: str) -> str:
    """A text, also where it is marked as safe in HTML, or is translated when it is looked at."""
    if isinstance(value, str):
        return value
    if isinstance(value, Instance):
        given = value.arguments
        if value.kind == _SAFE_TEXT and len(given) == 1 and isinstance(given[0], str):
            return given[0]
        if value.kind == _LAZY and len(given) > 1 and isinstance(given[0], Global) and given[0] in _TRANSLATIONS:
            count, translate = _TRANSLATIONS[given[0]]
            texts = given[1]
            if isinstance(texts, tuple) and len(texts) == count and all(isinstance(text, str) for text in texts):
                return translate(*texts)
    raise PickleRefused(f"its {name} is no text")


def _header(name: Any, value: Any) -> tuple[str, str]:
    if isinstance(value, Instance) and value.kind == _HEADER and len(value.arguments) == 3:
        value = value.arguments[2]
    name, value = _text(name, "attachments"), _FOLD.sub("", _text(value, "attachments"))
    if not re.fullmatch(r"[!-9;-~]+", name) or "\r" in value or "\n" in value:
        raise PickleRefused("a header of an attached part is none")
    return name, value


def _charset(name: Any) -> str:
    try:
        return codecs.lookup(name).name
    except (LookupError, TypeError, ValueError):
        raise PickleRefused("its encoding is not known") from None


class _Plain:
    """Copies values of JSON's kinds, and counts them."""

    def __init__(self) -> None:
        self._count = 0

    def copy(self, value: Any, name: str, depth: int = 0) -> Any:
        self._count += 1
        if self._count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise PickleRefused(f"its {name} is too large, or contains itself")
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, list | tuple):
            return [self.copy(one, name, depth + 1) for one in value]
        if isinstance(value, dict):
            return {key: self.copy(one, name, depth + 1) for key, one in value.items()}
        return _text(value, name)
