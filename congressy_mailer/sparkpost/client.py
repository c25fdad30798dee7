"""SparkPost's HTTP API through the ``sparkpost`` package, which sets no timeout and keeps no connection of its own.

Every error becomes a :class:`~congressy_mailer.exceptions.SparkPostError` without the frames of ``requests`` that it
went through. In them, and in the package's own, is the API key, and reports of errors show the variables of all: so the
key is a text that does not show itself.
"""

from __future__ import annotations

import re
import ssl
import traceback
from typing import Any

import requests
import sparkpost
from django.views.decorators.debug import sensitive_variables
from sparkpost.base import RequestsTransport

from ..conf import mailer_settings
from ..credentials import remember
from ..exceptions import SparkPostError
from ..replies import printable_text, retry_after_seconds
from .sessions import session_for_call

# The whole of a call, as a multiple of SPARKPOST_API_TIMEOUT: a body of 20 MB over a slow line, and the answer.
_LONGEST_CALL = 4
# As the last part of a path.
_ADDRESS = re.compile(r"/[^/]*(?:@|%40).*$")


class Client(sparkpost.SparkPost):  # type: ignore[misc]
    """The package's client, over the transport below."""

    def __repr__(self) -> str:
        return f"<Client of {self.base_uri}>"


@sensitive_variables()
def api_client(key: str | None = None, host: str | None = None) -> Client:
    """A client of SparkPost's HTTP API.

    Args:
        key: an API key; ``None``: ``SPARKPOST_API_KEY``.
        host: with its port where it is not 443; ``None``: ``SPARKPOST_API_HOST``.

    Raises:
        SparkPostError: there is no key.
    """
    conf = mailer_settings()
    key = key or conf.SPARKPOST_API_KEY
    if key is None:
        raise SparkPostError("CONGRESSY_MAILER['SPARKPOST_API_KEY'] is not set: SparkPost's HTTP API cannot be used.")
    remember(key)
    return Client(ApiKey(key), host or conf.SPARKPOST_API_HOST)


class ApiKey(str):
    """A text that debuggers and error reports do not show."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'********'"


class Transport(RequestsTransport):  # type: ignore[misc]
    """One HTTP request, with timeouts and a deadline."""

    def __init__(self) -> None:
        # The package would open a session for each resource.
        pass

    @sensitive_variables()
    def request(
        self, method: str, uri: str, headers: dict[str, str], *, full_response: bool = False, **options: Any
    ) -> Any:
        """Ask, and return what is in ``results``; ``True`` where there is no answer to give.

        Args:
            method: of HTTP.
            uri: whole.
            headers: the key among them.
            full_response: return the answer as it is, with what is beside ``results``.
            options: further arguments of ``requests``: ``params`` and ``data``.

        Raises:
            SparkPostError: SparkPost says no, or cannot be asked. ``status`` tells which.
        """
        try:
            answer = self._send(method, uri, headers, options)
        except (OSError, UnicodeError) as error:
            problem = SparkPostError(
                f"SparkPost's HTTP API cannot be reached at {_safe_uri(uri)}: {_describe(error)}",
                in_doubt=not _was_never_sent(error),
            )
        else:
            if isinstance(answer, SparkPostError):
                problem = answer
            elif full_response or not isinstance(answer, dict):
                return answer
            else:
                return answer.get("results", answer)
        raise problem from None

    @sensitive_variables()
    def _send(self, method: str, uri: str, headers: dict[str, str], options: dict[str, Any]) -> Any:
        conf = mailer_settings()
        seconds = conf.SPARKPOST_API_TIMEOUT.total_seconds()
        # At least half of LEASE, which is longer than TIME_LIMIT, is left to mails when a call for them begins.
        longest = min(_LONGEST_CALL * seconds, conf.TIME_LIMIT.total_seconds() / 2)
        with session_for_call(longest) as session:
            response = session.request(
                method,
                uri,
                headers=headers,
                timeout=(seconds, seconds),
                # The key is for this host and for no other that it may name.
                allow_redirects=False,
                # Not what a .netrc has for the host, in place of the key.
                auth=lambda request: request,
                **options,
            )
        if response.status_code == 204:
            return True
        try:
            answer = response.json()
        except (ValueError, RecursionError):
            answer = None
        if 200 <= response.status_code < 300 and answer is not None:
            return answer
        return _api_error(response, answer, headers.get("Authorization", ""))


# The package's class has no annotations.
Client.TRANSPORT_CLASS = Transport


@sensitive_variables()
def _api_error(response: requests.Response, answer: Any, key: str) -> SparkPostError:
    """SparkPost's reason for a refusal, without the key, which a proxy may have repeated."""
    errors = answer.get("errors") if isinstance(answer, dict) else None
    codes, texts = [], []
    for error in errors if isinstance(errors, list) else []:
        if isinstance(error, dict):
            codes.append(str(error.get("code", "")))
            words = [str(error[name]) for name in ("message", "description") if error.get(name)]
            texts.append(": ".join(words))
    text = "; ".join(texts) or response.text
    text = printable_text(text.replace(key, "********") if key else text)[:500]
    return SparkPostError(
        f"SparkPost's HTTP API answered {response.status_code} at {_safe_uri(response.url)}: {text}",
        status=response.status_code,
        codes=tuple(filter(None, codes)),
        retry_after=retry_after_seconds(response.headers.get("Retry-After")),
    )


def _was_never_sent(error: Exception) -> bool:
    """Whether certainly nothing was sent; otherwise the request may have arrived."""
    if not isinstance(error, requests.RequestException) or isinstance(error, ValueError | requests.ConnectTimeout):
        # What it was to be asked with is wrong: the file of certificates, the key, the host's name.
        return True
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    if type(reason).__name__ in ("NewConnectionError", "NameResolutionError", "ProxyError"):
        return True
    cause = reason.args[0] if isinstance(reason, Exception) and reason.args else None
    # An error of TLS may come at any time. Before the handshake is over, nothing has been said.
    return isinstance(cause, ssl.SSLError) and any(
        frame.f_code.co_name == "do_handshake" for frame, _ in traceback.walk_tb(cause.__traceback__)
    )


def _describe(error: Exception) -> str:
    """In few words: those of ``requests`` repeat the URL with all that is in it."""
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return printable_text(f"{type(error).__name__}: {type(reason).__name__}" if reason else type(error).__name__)


def _safe_uri(uri: str) -> str:
    """Without what is asked for: an address may be in it."""
    return _ADDRESS.sub("/…", uri.partition("?")[0])
