"""What an HTTP answer means for a mail, read from an exception or a response of any HTTP client.

Clients and SDKs name the same things differently. Those known here are the names of requests, httpx, urllib, urllib3,
aiohttp, botocore, Google's, Azure's and Twilio's clients, and of the SDKs of providers. The meaning of a status is that
of RFC 9110 §15; the codes are those of "Common Errors" and ``SendEmail`` in Amazon SES' API reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Any

from ..replies import Reply, Verdict, printable_text, retry_after_seconds

# Names of the attribute or key that holds the status, and of the one that holds the response.
_STATUS_NAMES = ("status_code", "http_status", "http_code", "response_status_code", "statusCode", "status", "code")
_RESPONSE_NAMES = ("response", "resp", "http_response")
_HEADERS_NAMES = ("headers", "response_headers", "HTTPHeaders")
_BODY_NAMES = ("text", "body", "content")

# Characters of an answer that help people; the rest of a page does not.
_LONGEST_BODY = 300

_URL = re.compile(r"\b(https?://)(?:[^\s/?#@'\"]*@)?([^\s/?#'\"()<>]+)[^\s'\"<>]*", re.IGNORECASE)

# 4xx of the account, its credentials, its limits or the place where it was asked; 408, 425 and 429 say that nothing was
# taken this time. SparkPost's API has the same ones.
_ACCOUNT_STATUSES = frozenset({401, 402, 403, 404, 405, 406, 407, 408, 415, 420, 421, 425, 426, 429, 498, 499})
# 4xx of the content or the recipients of this one mail.
_MAIL_STATUSES = frozenset({400, 413, 422})
_PAYLOAD_TOO_LARGE = 413
# A gateway that has passed the request on and got no answer (RFC 9110 §15.6.5, and Cloudflare's "A timeout occurred").
_GATEWAY_TIMEOUTS = frozenset({504, 524})

# Of the account or the service, although Amazon answers some of them with 400.
_ACCOUNT_CODES = re.compile(
    r"Throttl|TooManyRequests|LimitExceeded|SlowDown|Paused|Suspended|AccessDenied|ExpiredToken|RequestExpired"
    r"|InvalidClientTokenId|UnrecognizedClient|IncompleteSignature|SignatureDoesNotMatch|MissingAuthenticationToken"
    r"|OptInRequired|ServiceUnavailable|InternalFailure|InternalServer|ConfigurationSetDoesNotExist",
    re.IGNORECASE,
)
_SENDER_CODES = frozenset({"MailFromDomainNotVerifiedException", "MailFromDomainNotVerified"})


@dataclass(frozen=True, slots=True)
class Failure:
    """What it means that a mail was not simply accepted."""

    verdict: Verdict
    #: What was said, or what happened instead of an answer.
    reply: Reply
    #: The server may have taken the mail.
    in_doubt: bool = False
    #: The server gave no answer that could be read: the mail after this one should not have to find that out again.
    lost: bool = False
    #: How long the server wants to be left alone, where it says so.
    retry_in: timedelta | None = None
    #: What was said of single recipients.
    recipients: Mapping[str, Reply] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer, as far as it could be read."""

    status: int
    #: For people: reason and beginning of the body.
    text: str
    #: The provider's own code; empty where there is none.
    code: str = ""
    #: The body is a page for people, and so not the API's own word.
    is_page: bool = False
    #: What ``Retry-After`` asks for.
    retry_in: timedelta | None = None


def find_answer(error: BaseException) -> HttpAnswer | None:
    """The HTTP answer that an exception carries; ``None`` where it carries none.

    Args:
        error: the exception itself; what it was raised from is not looked at.
    """
    responses = [response for name in _RESPONSE_NAMES if (response := attribute(error, name)) is not None]
    status = next((found for one in [*responses, error] if (found := status_of(one)) is not None), None)
    if status is None:
        return None
    code, words = _provider_error(responses)
    body = next((body for one in [*responses, error] if (body := _body(one))), "")
    is_page = body.lstrip()[:1] == "<"
    reasons = (reason for one in [*responses, error] if (reason := _reason(one)))
    reason = next(reasons, "") or _standard_reason(status)
    text = ": ".join(filter(None, [reason, code, words or ("" if is_page else body[:_LONGEST_BODY])]))
    return HttpAnswer(status, without_paths(text), code, is_page, _retry_in([*responses, error]))


def classify_answer(answer: HttpAnswer) -> Failure:
    """What an answer that is not simply an acceptance means for the mail it was given to.

    The service's own fault is no mail's, nor is one of the account: everything stays queued.
    """
    reply = Reply(answer.status, answer.text)
    if 200 <= answer.status < 300:
        text = f"The answer {answer.status} could not be read."
        return Failure(Verdict.DEFERRED, Reply(None, text), in_doubt=True, lost=True)
    if answer.status in _GATEWAY_TIMEOUTS:
        text = f"A gateway answered {answer.status} {_standard_reason(answer.status)}".rstrip()
        return Failure(Verdict.DEFERRED, Reply(None, text), in_doubt=True, lost=True, retry_in=answer.retry_in)
    if answer.code in _SENDER_CODES:
        return Failure(Verdict.SENDER_REFUSED, reply)
    if (
        not 400 <= answer.status < 500
        or answer.status in _ACCOUNT_STATUSES
        or (answer.code and _ACCOUNT_CODES.search(answer.code))
    ):
        return Failure(Verdict.UNAVAILABLE, reply, retry_in=answer.retry_in)
    if answer.status == _PAYLOAD_TOO_LARGE or (answer.status in _MAIL_STATUSES and not answer.is_page):
        return Failure(Verdict.REJECTED, reply)
    # Perhaps the word of something between: no reason to give a mail up.
    return Failure(Verdict.DEFERRED, reply)


def status_of(source: Any) -> int | None:
    """The HTTP status that an exception, a response or a mapping of botocore's names; ``None``: none."""
    if isinstance(source, Mapping):
        metadata = source.get("ResponseMetadata")
        if isinstance(metadata, Mapping) and (status := _as_status(metadata.get("HTTPStatusCode"))) is not None:
            return status
    return next((status for name in _STATUS_NAMES if (status := _as_status(_item(source, name))) is not None), None)


def attribute(source: Any, name: str) -> Any:
    """An attribute of a foreign object, whose properties may raise; ``None`` if it has none."""
    try:
        return getattr(source, name, None)
    except Exception:
        return None


def without_paths(text: str) -> str:
    """Each URL as scheme and host: keys and addresses may be in the rest."""
    return _URL.sub(r"\1\2/…", text)


def _as_status(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) == len("200"):
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 200 <= value < 600:
        return int(value)
    return None


def _item(source: Any, name: str) -> Any:
    return source.get(name) if isinstance(source, Mapping) else attribute(source, name)


def _provider_error(responses: Iterable[Any]) -> tuple[str, str]:
    """Code and words of botocore's parsed error."""
    for response in responses:
        error = response.get("Error") if isinstance(response, Mapping) else None
        if isinstance(error, Mapping):
            return str(error.get("Code") or ""), str(error.get("Message") or "")
    return "", ""


def _body(source: Any) -> str:
    for name in _BODY_NAMES:
        value = attribute(source, name)
        if isinstance(value, bytes):
            value = value[: 4 * _LONGEST_BODY].decode(errors="replace")
        if isinstance(value, str) and value.strip():
            return printable_text(value)
    return ""


def _reason(source: Any) -> str:
    value = attribute(source, "reason")
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value if isinstance(value, str) else ""


def _standard_reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _retry_in(sources: Iterable[Any]) -> timedelta | None:
    for source in sources:
        given = attribute(source, "retry_after")
        if isinstance(given, timedelta):
            given = given.total_seconds()
        for value in (*_headers_named(source, "retry-after"), given):
            if isinstance(value, bytes):
                value = value.decode(errors="replace")
            if isinstance(value, int | float | str) and not isinstance(value, bool):
                seconds = retry_after_seconds(str(value))
                if seconds is not None:
                    return timedelta(seconds=seconds)
    return None


def _headers_named(source: Any, wanted: str) -> Iterator[Any]:
    metadata = source.get("ResponseMetadata") if isinstance(source, Mapping) else None
    for holder in (source, metadata):
        for name in _HEADERS_NAMES:
            yield from (value for key, value in _pairs(_item(holder, name)) if key.lower() == wanted)


def _pairs(headers: Any) -> list[tuple[str, Any]]:
    # Not every kind of headers is a mapping.
    items = attribute(headers, "items")
    try:
        return [(str(key), value) for key, value in items()] if callable(items) else []
    except Exception:
        return []
