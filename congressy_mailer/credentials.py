"""The passwords and keys that this process uses, left out of texts that are stored, logged, raised or shown.

A mail server may repeat in its refusal what it was sent, as it was sent: RFC 4954 logins travel in Base64. An error of
a library may repeat its arguments, escaped in one way or another. So each secret is known in all of these forms.
"""

from __future__ import annotations

import html
import re
import threading
import traceback
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from html.entities import codepoint2name
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.functional import empty

_MASK = "********"

#: Shorter ones stand in half of all words, and leaving those out would tell where.
_SHORTEST = 4
#: Shorter ones are left out only where they stand alone, and not within a word or a number; of letters only, those that
#: are as short as words.
_SHORTEST_ANYWHERE = 8
_LONGEST_WORD = 15
#: So many that are not in the settings are remembered: some backends get a new token each hour.
_MOST_REMEMBERED = 100

#: Settings in which a key that looks like one of these names a secret.
_SETTINGS = ("MAILERS", "CONGRESSY_MAILER", "ANYMAIL", "CACHES", "STORAGES")
_KEY = re.compile(r"passw|secret|token|api_?key|access_key|private_key|credential", re.IGNORECASE)
_URL_LOGIN = re.compile(r"://[^:@/?#\s]*:(.+)@")
_WEBHOOK_SECRET = re.compile(r"(?:basic [^:]*:|bearer |token )(.+)", re.DOTALL)
_DEEPEST = 5

# What a secret may be written with where it is not written as it is.
_ESCAPE = re.compile(r"%[0-9a-f]{2}|=[0-9a-f]{2}|\\|&#|&[a-z]+;|\ufffd|\+", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/_=-]*")
# A text may be broken into lines.
_GAP = r"(?:\s|\\[nrt])*"


def remember(*secrets: object) -> None:
    """Leave these out from now on, beside those of the settings.

    Args:
        secrets: texts; values of other types are ignored.
    """
    with _lock:
        for secret in secrets:
            if isinstance(secret, str) and secret not in _remembered:
                _remembered[secret] = None
                _forget_patterns()
        while len(_remembered) > _MOST_REMEMBERED:
            del _remembered[next(iter(_remembered))]


def remember_those_of(holder: object) -> None:
    """The same for the attributes of an object, such as a mail backend, whose names are those of secrets."""
    try:
        remember(*(value for name, value in vars(holder).items() if _KEY.search(name)))
    except Exception:
        # Something without attributes, or that is changed meanwhile.
        return


def remember_urls(*urls: object) -> None:
    """The same for the passwords within URLs, such as a broker's."""
    remember(*(password for url in urls for password in _passwords_of_urls(url, depth=0)))


def without_credentials(text: str) -> str:
    """The text with each secret that it repeats replaced by asterisks. Never raises."""
    try:
        patterns = _patterns or _make_patterns()
        return patterns.masked(text) if patterns.may_match(text) else text
    except Exception:
        return "(not shown: it could not be checked for passwords)"


def loggable(error: BaseException) -> BaseException | None:
    """The error, to be logged with its traceback; ``None`` where that would repeat a secret."""
    try:
        printed = "".join(traceback.format_exception(error))
    except Exception:
        return None
    return error if without_credentials(printed) == printed else None


class _Patterns:
    """Secrets in all the forms in which they are looked for."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._secrets = sorted({secret for secret in secrets if len(secret) >= _SHORTEST}, key=len, reverse=True)
        #: Looked for in the text in lower case and without blanks.
        self._literals = {literal for secret in self._secrets for literal in _literals(secret)}

    def may_match(self, text: str) -> bool:
        """Whether it is worth looking closer."""
        if not self._secrets:
            return False
        if _ESCAPE.search(text):
            return True
        squeezed = _squeezed(text)
        return any(literal in squeezed for literal in self._literals)

    def masked(self, text: str) -> str:
        compiled = [_compiled(secret) for secret in self._secrets]
        for _, in_base64 in compiled:
            text = _without_base64(text, in_base64)
        for plain, _ in compiled:
            text = plain.sub(_MASK, text)
        return text


def _literals(secret: str) -> Iterator[str]:
    octets = secret.encode(errors="replace")
    yield from map(_squeezed, (secret, octets.decode("latin-1"), octets.hex(), *_base64_cores(secret)))


# Compiling one takes some 25 ms, and a change of the settings or a new token leaves most of them as they are.
@lru_cache(maxsize=4 * _MOST_REMEMBERED)
def _compiled(secret: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """What finds a secret, and its Base64."""
    hexadecimal = _gapped(secret.encode(errors="replace").hex())
    cores = sorted(set(_base64_cores(secret)), key=len, reverse=True)
    return (
        re.compile(f"{_plain_pattern(secret)}|{hexadecimal}", re.IGNORECASE),
        re.compile("|".join(map(_base64_pattern, cores))),
    )


def _without_base64(text: str, pattern: re.Pattern[str]) -> str:
    """Base64 of anything that holds a secret, left out as a whole: its ends are parts of the secret too."""
    parts = []
    position = 0
    while (match := pattern.search(text, position)) is not None:
        start = match.start()
        while start > position and _BASE64.fullmatch(text[start - 1]):
            start -= 1
        end = _BASE64.match(text, match.end())
        assert end is not None
        parts += [text[position:start], _MASK]
        position = end.end()
    return "".join([*parts, text[position:]])


def _squeezed(text: str) -> str:
    return "".join(text.lower().split())


def _gapped(characters: Iterable[str]) -> str:
    return _GAP.join(characters)


def _plain_pattern(secret: str) -> str:
    pattern = _gapped(map(_character_pattern, secret))
    if len(secret) < _SHORTEST_ANYWHERE or (secret.isalpha() and len(secret) <= _LONGEST_WORD):
        # RFC 4616 puts a NUL before it, which has escapes of its own.
        pattern = rf"(?:(?<![^\W_])|(?<=\\x00)|(?<=\\0)|(?<=%00)|(?<=\\u0000)){pattern}(?![^\W_])"
    return pattern


def _character_pattern(character: str) -> str:
    """One character of a secret: as it is, and as URLs, Python, JSON, HTML and quoted-printable escape it."""
    octets = character.encode(errors="replace")
    code = ord(character)
    forms = [
        re.escape(character), re.escape(octets.decode("latin-1")), *(f"{sign}{octets.hex(sign)}" for sign in "%="),
        "".join(rf"\\x{octet:02x}" for octet in octets), rf"\\x{code:02x}", rf"\\u{code:04x}", rf"\\U{code:08x}",
        f"&#0*{code};", f"&#x0*{code:x};",
    ]  # fmt: skip
    if code in codepoint2name:
        forms.append(f"&{codepoint2name[code]};")
    if not character.isalnum():
        forms.append(rf"\\+{re.escape(character)}")
    if not character.isascii():
        forms.append("\ufffd+")
    if character == "'":
        forms += [html.escape(character), "''"]
    if character.isspace():
        forms += [r"\s+", r"\+"]
    return f"(?:{'|'.join(dict.fromkeys(forms))})"


def _base64_cores(secret: str) -> Iterator[str]:
    """The part of Base64 that a secret alone decides, at each of the three places where it may begin.

    So it is found within a login of any mechanism and for any user name.
    """
    octets = secret.encode(errors="replace")
    for before in range(3):
        encoded = b64encode(bytes(before) + octets).decode()
        core = encoded[-(-8 * before // 6) : 8 * (before + len(octets)) // 6]
        if len(core) >= _SHORTEST:
            yield core
            if core.translate(_URL_SAFE) != core:
                yield core.translate(_URL_SAFE)


_URL_SAFE = str.maketrans("+/", "-_")


def _base64_pattern(core: str) -> str:
    return _gapped(
        {"+": r"(?:\+|%2[bB]| )", "/": r"(?:\\?/|%2[fF])"}.get(character, re.escape(character)) for character in core
    )


def wrapped_settings() -> Any:
    """What is behind Django's settings, which in 6.1 warn of each of the older ones that they are asked for."""
    lazy: Any = settings
    return lazy._wrapped


def _secrets_of_settings() -> Iterator[str]:
    wrapped = wrapped_settings()
    if wrapped is empty:
        return
    password = getattr(wrapped, "EMAIL_HOST_PASSWORD", "")
    if isinstance(password, str):
        yield password
    for name in _SETTINGS:
        yield from _secrets_in(getattr(wrapped, name, None), is_secret=False, depth=0)
    for name in dir(wrapped):
        if name.isupper():
            yield from _passwords_of_urls(getattr(wrapped, name, None), depth=0)


def _secrets_in(value: object, *, is_secret: bool, depth: int) -> Iterator[str]:
    """Texts that stand, however deep, below a key which names a secret."""
    if isinstance(value, str):
        if is_secret:
            match = _WEBHOOK_SECRET.fullmatch(value)
            yield match[1] if match else value
    elif depth < _DEEPEST and isinstance(value, Mapping):
        for key, item in value.items():
            named = isinstance(key, str) and _KEY.search(key) is not None
            yield from _secrets_in(item, is_secret=is_secret or named, depth=depth + 1)
    elif depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _secrets_in(item, is_secret=is_secret, depth=depth + 1)


def _passwords_of_urls(value: object, depth: int) -> Iterator[str]:
    if isinstance(value, str):
        for url in value.split(";"):
            match = _URL_LOGIN.search(url)
            if match is not None:
                yield match[1]
                # Errors about a URL whose password has signs that a URL divides by repeat one part of it.
                yield from re.split(r"[/?#@:%\[\]]", match[1])
    elif depth < _DEEPEST and isinstance(value, Mapping | list | tuple | set | frozenset):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _passwords_of_urls(item, depth + 1)


_lock = threading.RLock()
_remembered: dict[str, None] = {}
_patterns: _Patterns | None = None


def _make_patterns() -> _Patterns:
    global _patterns
    with _lock:
        made = _Patterns([*_secrets_of_settings(), *_remembered])
        if wrapped_settings() is not empty:
            _patterns = made
        return made


def forget() -> None:
    """Leave out from now on what the settings have alone."""
    with _lock:
        _remembered.clear()
        _forget_patterns()


def _forget_patterns(**kwargs: Any) -> None:
    global _patterns
    _patterns = None


setting_changed.connect(_forget_patterns, dispatch_uid="congressy_mailer.credentials")
