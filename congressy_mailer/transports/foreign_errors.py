"""What an exception of a mail backend that is not Django's means: whether anything was sent, and whose fault it is.

No client's package needs to be installed for that: classes are known by their names, their base classes' names among
them. An exception is read together with those that it holds or was raised from, from the outside in, since most tell
their meaning only by what they wrap. Where the last attempt sent nothing, and an earlier one that the backend has made
got no answer, the mail is in doubt.
"""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend

from ..replies import Reply, Stage, Verdict, classify, error_text, printable_text
from .http_answers import Failure, attribute, classify_answer, find_answer, without_paths

# Exceptions that are read together. A chain of causes may be a ring.
_LONGEST_CHAIN = 60

#: Attributes in which an exception holds the one that it stands for.
_HELD_IN = ("reason", "orig_err", "original_error", "error", "inner_exception", "os_error")

# The connection was never made, or the request never begun: name, network, proxy, login, or the configuration is at
# fault, and no mail.
_NEVER_SENT = frozenset({
    "ConnectionRefusedError", "gaierror", "herror", "SSLCertVerificationError",
    # requests and urllib3
    "ConnectTimeout", "ProxyError", "MissingSchema", "InvalidSchema", "InvalidURL", "InvalidProxyURL",
    "NewConnectionError", "NameResolutionError", "ConnectTimeoutError", "LocationParseError",
    # http.client and httplib2
    "CannotSendRequest", "ServerNotFoundError",
    # httpx
    "ConnectError", "PoolTimeout", "UnsupportedProtocol", "LocalProtocolError",
    # aiohttp
    "ClientConnectorError", "ClientProxyConnectionError", "ConnectionTimeoutError",
    # botocore
    "EndpointConnectionError", "ProxyConnectionError", "NoCredentialsError", "PartialCredentialsError",
    "CredentialRetrievalError", "NoAuthTokenError", "TokenRetrievalError", "SSOError", "NoRegionError",
    "ProfileNotFound", "UnknownServiceError", "InvalidRegionError", "ConfigNotFound", "ConfigParseError",
    # Google's and Azure's clients
    "DefaultCredentialsError", "RefreshError", "ServiceRequestError", "ClientAuthenticationError",
    # Django, and a backend that is not finished
    "ImproperlyConfigured", "ImportError", "NotImplementedError",
})  # fmt: skip

# The request may have been read, and the answer was not.
_NO_ANSWER = frozenset({
    # requests and urllib3; httpx has some of the same names
    "ReadTimeout", "ReadTimeoutError", "ProtocolError", "ChunkedEncodingError", "ContentDecodingError", "DecodeError",
    "RemoteProtocolError", "ReadError", "WriteError", "WriteTimeout", "CloseError",
    # aiohttp
    "ServerDisconnectedError", "ServerTimeoutError", "SocketTimeoutError", "ClientPayloadError", "ClientOSError",
    # botocore; Azure's clients
    "ConnectionClosedError", "ResponseStreamingError", "ResponseParserError", "ServiceResponseError",
    # http.client
    "HTTPException",
})  # fmt: skip

#: Of these, what an earlier attempt may have met: the others also come up while a connection is made.
_NO_ANSWER_FOR_CERTAIN = _NO_ANSWER - {"HTTPException", "ClientOSError"}

# The mail is refused before it is sent.
_MAILS_OWN = frozenset({
    "AnymailInvalidAddress", "AnymailUnsupportedFeature", "AnymailSerializationError", "AnymailRecipientsRefused",
    "ParamValidationError",
})  # fmt: skip

# Of a host that reaches no network, or of its files: nothing was sent.
_HOST_ERRORS = frozenset({
    errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT,
    errno.ECONNREFUSED, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE,
    errno.ENFILE,
})  # fmt: skip

# What a class is called that is in no list above.
_LIMITED = re.compile(
    r"rate_?limit|too_?many|throttl|quota|unavailable|unauthori[sz]|authenti|authori[sz]ation|forbidden|credential"
    r"|permission_?denied|access_?denied|api_?key",
    re.IGNORECASE,
)

# Functions in which a connection is made, of the standard library and of clients.
_CONNECTING = frozenset({
    "connect", "_connect", "create_connection", "_create_connection", "open_connection", "connect_tcp", "getaddrinfo",
    "do_handshake", "start_tls", "starttls", "ehlo", "helo", "ehlo_or_helo_if_needed", "login", "_new_conn",
})  # fmt: skip

#: What a backend of SMTP that connects by itself may fail at before the content.
_STAGES = {
    "SMTPConnectError": Stage.CONNECT,
    "SMTPHeloError": Stage.CONNECT,
    "SMTPAuthenticationError": Stage.AUTH,
    "SMTPSenderRefused": Stage.MAIL,
    "SMTPRecipientRefused": Stage.RCPT,
}


def failure_of(error: BaseException) -> Failure:
    """What an exception means that a backend has raised for one mail.

    Args:
        error: of any kind.

    Returns:
        A failure, which is in doubt if the mail may have been accepted.
    """
    chain = list(_chain(error))
    found = next((failure for one in chain if (failure := _meaning(one)) is not None), None)
    found = found or _by_common_names(chain)
    if found is None:
        # The request may have arrived.
        return Failure(Verdict.DEFERRED, _words(error), in_doubt=True)
    if found.verdict is Verdict.UNAVAILABLE and any(map(_got_no_answer, chain)):
        return _no_answer(error)
    return found


def _got_no_answer(error: BaseException) -> bool:
    """Whether it tells of an attempt whose request was sent."""
    return bool(_names(error) & _NO_ANSWER_FOR_CERTAIN) and not _while_connecting(error)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, what it holds, and what it was raised from, each before what is behind it."""
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting and len(seen) < _LONGEST_CHAIN:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        behind = [one.__cause__] if one.__cause__ is not None else [one.__context__]
        waiting[:0] = [*_held(one), *(link for link in behind if link is not None)]


def _held(error: BaseException) -> list[BaseException]:
    held = [*error.args, *(attribute(error, name) for name in _HELD_IN)]
    group = attribute(error, "exceptions")
    held += group if isinstance(group, list | tuple) else ()
    return [one for one in held if isinstance(one, BaseException)]


def _names(error: BaseException) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _meaning(error: BaseException) -> Failure | None:
    """What this exception tells by itself; ``None`` where it takes those behind it to know."""
    names = _names(error)
    if any(name.startswith("SMTP") for name in names):
        failure = _smtp_failure(error, names)
        if failure is not None:
            return failure
    if names & _MAILS_OWN:
        return Failure(Verdict.REJECTED, _words(error))
    answer = find_answer(error)
    if answer is not None:
        return classify_answer(answer)
    if names & _NEVER_SENT:
        return _never_sent(error)
    if names & _NO_ANSWER or isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return _never_sent(error) if _while_connecting(error) else _no_answer(error)
    if isinstance(error, TimeoutError | ssl.SSLError):
        return _never_sent(error) if _while_connecting(error) else _no_answer(error)
    if isinstance(error, OSError) and (error.errno in _HOST_ERRORS or _while_connecting(error)):
        return _never_sent(error)
    return None


def _smtp_failure(error: BaseException, names: set[str]) -> Failure | None:
    """Errors of ``smtplib``, and of other clients of SMTP that name theirs alike."""
    refused = _refused_recipients(error)
    if refused:
        return Failure(Verdict.DEFERRED, _words(error), recipients=refused)
    reply = _smtp_reply(error)
    stage = next((stage for name, stage in _STAGES.items() if name in names), None)
    if reply is not None and reply.code is not None:
        if stage is not None:
            verdict = classify(reply.code, reply.text, stage)
            # The exchange ended although nothing was refused.
            return Failure(Verdict.DEFERRED if verdict is Verdict.ACCEPTED else verdict, reply)
        if "SMTPDataError" in names and 400 <= reply.code < 600:
            return Failure(classify(reply.code, reply.text, Stage.CONTENT), reply)
        # smtplib makes up replies too: 500 for a line that is too long, -1 for garbage.
        return Failure(Verdict.DEFERRED, _words(error), in_doubt=True)
    if stage in (Stage.CONNECT, Stage.AUTH) or "SMTPConnectTimeoutError" in names or _while_connecting(error):
        return _never_sent(error)
    if names & {"SMTPServerDisconnected", "SMTPTimeoutError", "SMTPReadTimeoutError"}:
        return Failure(Verdict.DEFERRED, _words(error), in_doubt=True)
    if "SMTPNotSupportedError" in names:
        # smtplib looks at what the server offers before it says anything of a mail.
        return Failure(Verdict.DEFERRED, _words(error))
    return None


def _refused_recipients(error: BaseException) -> dict[str, Reply]:
    recipients = attribute(error, "recipients")
    refused: dict[str, Reply] = {}
    if isinstance(recipients, dict):
        for recipient, said in recipients.items():
            if isinstance(said, tuple) and len(said) == len(("code", "text")) and isinstance(said[0], int):
                refused[str(recipient)] = Reply(said[0], printable_text(_text(said[1])))
    elif isinstance(recipients, list | tuple):
        for one in recipients:
            reply = _smtp_reply(one) if isinstance(one, BaseException) else None
            if reply is not None:
                refused[str(attribute(one, "recipient"))] = reply
    return refused


def _smtp_reply(error: BaseException) -> Reply | None:
    code, text = attribute(error, "smtp_code"), attribute(error, "smtp_error")
    if code is None:
        code, text = attribute(error, "code"), attribute(error, "message")
    return Reply(code, printable_text(_text(text))) if isinstance(code, int) else None


def _text(value: Any) -> bytes | str:
    return value if isinstance(value, bytes | str) else ""


def _by_common_names(chain: list[BaseException]) -> Failure | None:
    """What a class is by its name alone, where nothing that it was raised from tells more."""
    for error in chain:
        names = _names(error) - {"Exception", "BaseException", "object"}
        if any("Timeout" in name for name in names):
            return _no_answer(error)
        if any(name.endswith("ConnectionError") for name in names) or any(map(_LIMITED.search, names)):
            return _never_sent(error)
    return None


def _never_sent(error: BaseException) -> Failure:
    return Failure(Verdict.UNAVAILABLE, _reply(error))


def _no_answer(error: BaseException) -> Failure:
    return Failure(Verdict.DEFERRED, _reply(error), in_doubt=True, lost=True)


def _reply(error: BaseException) -> Reply:
    """The exception in place of an answer. Where the operating system has words for it, those are the shortest."""
    words = next(
        (one.strerror for one in _chain(error) if isinstance(one, OSError) and isinstance(one.strerror, str)), None
    )
    return Reply(None, f"{type(error).__name__}: {words}") if words else _words(error)


def _words(error: BaseException) -> Reply:
    return Reply(None, without_paths(error_text(error)))


def _while_connecting(error: BaseException) -> bool:
    """Whether it, or what it holds or was expressly raised from, came up while a connection was made."""
    seen: set[int] = set()
    waiting = [error]
    while waiting and len(seen) < _LONGEST_CHAIN:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if any(_makes_connection(frame) for frame, _ in walk_tb(one.__traceback__)):
            return True
        waiting += [*_held(one), *([one.__cause__] if one.__cause__ is not None else [])]
    return False


def _makes_connection(frame: Any) -> bool:
    name = frame.f_code.co_name
    return name in _CONNECTING or (name == "open" and isinstance(frame.f_locals.get("self"), BaseEmailBackend))
