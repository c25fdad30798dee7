"""What exceptions of clients mean that may not be installed here: classes of the same names, in the same shapes."""

from __future__ import annotations

import errno
import http.client
import io
import smtplib
import socket
import ssl
import urllib.error
from datetime import timedelta
from email.message import Message as Headers
from types import SimpleNamespace
from typing import Any

import pytest
import requests
import urllib3
from django.core.exceptions import ImproperlyConfigured

from congressy_mailer.replies import Verdict
from congressy_mailer.transports.foreign_errors import failure_of

UNAVAILABLE, IN_DOUBT, REJECTED, DEFERRED = "unavailable", "in doubt", "rejected", "deferred"


def kind(name: str, *bases: type[BaseException]) -> Any:
    """An exception class of somebody else's, whose instances take any attributes."""
    return type(name, bases or (Exception,), {})


def raised(name: str, *arguments: Any, base: type[BaseException] = Exception, **attributes: Any) -> Exception:
    error: Exception = kind(name, base)(*arguments)
    for attribute, value in attributes.items():
        setattr(error, attribute, value)
    return error


def caused(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


def in_context(error: Exception, context: BaseException) -> Exception:
    error.__context__ = context
    return error


def ring() -> Exception:
    first, second = kind("SdkError")("a"), kind("SdkError")("b")
    first.__cause__, second.__cause__ = second, first
    return first  # type: ignore[no-any-return]


def response(status: int, body: str = "", **headers: str) -> requests.Response:
    answer = requests.Response()
    answer.status_code = status
    answer._content = body.encode()
    answer.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return answer


def botocore_error(status: int, code: str, **headers: str) -> Exception:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return raised("ClientError", "x", response={"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": metadata})


def connecting(error: BaseException) -> BaseException:
    """The same error, raised while a connection is made."""

    def do_handshake() -> None:
        raise error

    try:
        do_handshake()
    except BaseException as caught:
        return caught
    raise AssertionError


def meaning(error: BaseException) -> str:
    failure = failure_of(error)
    if failure.in_doubt:
        assert failure.verdict is Verdict.DEFERRED
        return IN_DOUBT
    return failure.verdict.value


POOL = urllib3.HTTPConnectionPool("x")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        # The connection was never made.
        (ConnectionRefusedError(111, "Connection refused"), UNAVAILABLE),
        (socket.gaierror(-2, "Name or service not known"), UNAVAILABLE),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), UNAVAILABLE),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/usr/sbin/sendmail"), UNAVAILABLE),
        (OSError(errno.ENOSPC, "No space left on device"), UNAVAILABLE),
        (ConnectionError("cannot connect"), UNAVAILABLE),
        (requests.ConnectionError(), UNAVAILABLE),
        (requests.ConnectTimeout(), UNAVAILABLE),
        (requests.exceptions.ProxyError("x"), UNAVAILABLE),
        (requests.exceptions.InvalidURL("x"), UNAVAILABLE),
        (requests.ConnectionError(urllib3.exceptions.NewConnectionError(POOL, "x")), UNAVAILABLE),  # type: ignore[arg-type]
        (urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), UNAVAILABLE),
        (raised("ConnectError", "x"), UNAVAILABLE),
        (raised("ClientConnectorError", "x", base=OSError), UNAVAILABLE),
        (raised("EndpointConnectionError"), UNAVAILABLE),
        (raised("NoCredentialsError"), UNAVAILABLE),
        (raised("SdkError", orig_err=ConnectionRefusedError(111, "x")), UNAVAILABLE),
        (caused(kind("SdkError")("x"), caused(kind("Inner")("x"), ConnectionRefusedError(111, "x"))), UNAVAILABLE),
        (in_context(kind("SdkError")("x"), TimeoutError("x")), IN_DOUBT),
        (ExceptionGroup("all addresses", [OSError(errno.EHOSTUNREACH, "x"), ConnectionRefusedError()]), UNAVAILABLE),
        (connecting(TimeoutError("timed out")), UNAVAILABLE),
        (connecting(ConnectionResetError(104, "Connection reset by peer")), UNAVAILABLE),
        (connecting(ssl.SSLEOFError(8, "EOF occurred")), UNAVAILABLE),
        (urllib3.exceptions.ProtocolError("aborted", connecting(ConnectionResetError(104, "x"))), UNAVAILABLE),
        (connecting(smtplib.SMTPServerDisconnected("Connection unexpectedly closed")), UNAVAILABLE),
        (ImproperlyConfigured("MAILGUN_API_KEY is not set"), UNAVAILABLE),
        (ModuleNotFoundError("No module named 'boto3'"), UNAVAILABLE),
        (NotImplementedError(), UNAVAILABLE),
        # Answers of the service and about the account, by their names in many clients.
        (requests.HTTPError(response=response(503)), UNAVAILABLE),
        (requests.HTTPError(response=response(401)), UNAVAILABLE),
        (urllib.error.HTTPError("https://x", 502, "Bad Gateway", Headers(), io.BytesIO()), UNAVAILABLE),
        (raised("ApiException", status=429), UNAVAILABLE),
        (raised("ApiException", status="500"), UNAVAILABLE),
        (raised("ApiException", code=403), UNAVAILABLE),
        (raised("HttpError", resp=SimpleNamespace(status=503, reason="x")), UNAVAILABLE),
        (raised("HttpError", response=SimpleNamespace(status=429)), UNAVAILABLE),
        (raised("HTTPStatusError", response=SimpleNamespace(status_code=307)), UNAVAILABLE),
        (raised("TwilioRestException", status=429, code=20429), UNAVAILABLE),
        (caused(kind("SdkError")("x"), requests.HTTPError(response=response(404))), UNAVAILABLE),
        (botocore_error(400, "Throttling"), UNAVAILABLE),
        (botocore_error(400, "SendingPausedException"), UNAVAILABLE),
        (botocore_error(403, "AccessDenied"), UNAVAILABLE),
        (botocore_error(503, "ServiceUnavailable"), UNAVAILABLE),
        (botocore_error(400, "MailFromDomainNotVerifiedException"), "sender refused"),
        (raised("RateLimitExceeded", "slow down"), UNAVAILABLE),
        (raised("AuthenticationError", "bad key"), UNAVAILABLE),
        # This mail's own.
        (requests.HTTPError(response=response(400, '{"message": "to is not valid"}')), REJECTED),
        (requests.HTTPError(response=response(413)), REJECTED),
        (raised("ApiException", status_code=422), REJECTED),
        (botocore_error(400, "MessageRejected"), REJECTED),
        (raised("AnymailUnsupportedFeature", base=ValueError), REJECTED),
        (requests.HTTPError(response=response(400, "<html>")), DEFERRED),
        (raised("ApiException", status_code=409), DEFERRED),
        (smtplib.SMTPNotSupportedError("SMTPUTF8"), DEFERRED),
        # The request was written, and nobody knows what came of it.
        (requests.ReadTimeout(), IN_DOUBT),
        (requests.Timeout(), IN_DOUBT),
        (requests.ConnectionError(urllib3.exceptions.ProtocolError("x", ConnectionResetError(104, "x"))), IN_DOUBT),
        (http.client.RemoteDisconnected("closed"), IN_DOUBT),
        (http.client.IncompleteRead(b""), IN_DOUBT),
        (ConnectionResetError(104, "x"), IN_DOUBT),
        (BrokenPipeError(32, "x"), IN_DOUBT),
        (TimeoutError(), IN_DOUBT),
        (raised("ServerDisconnectedError"), IN_DOUBT),
        (raised("ReadError"), IN_DOUBT),
        (raised("ApiTimeoutError"), IN_DOUBT),
        (requests.HTTPError(response=response(504)), IN_DOUBT),
        (requests.HTTPError(response=response(200, "<html>")), IN_DOUBT),
        # A second attempt of the backend's own sent nothing, and the first got no answer.
        (in_context(ConnectionRefusedError(111, "x"), requests.ReadTimeout()), IN_DOUBT),
        (in_context(requests.HTTPError(response=response(503)), raised("ServerDisconnectedError")), IN_DOUBT),
        # Nobody knows.
        (KeyError("unexpected"), IN_DOUBT),
        (ring(), IN_DOUBT),
        (raised("SdkError", status_code="soon", code=7, status=True), IN_DOUBT),
        # Another client of SMTP, whose names are alike.
        (raised("SMTPConnectError", "x", base=OSError), UNAVAILABLE),
        (raised("SMTPAuthenticationError", code=535, message="no"), UNAVAILABLE),
        (raised("SMTPSenderRefused", code=550, message="no"), REJECTED),
        (raised("SMTPDataError", code=451, message="later"), DEFERRED),
        (raised("SMTPReadTimeoutError", base=TimeoutError), IN_DOUBT),
    ],
    ids=repr,
)
def test_what_an_exception_means(error: BaseException, expected: str) -> None:
    assert meaning(error) == expected


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (requests.HTTPError(response=response(429, retry_after="7")), 7),
        (raised("ApiException", status=503, headers={"Retry-After": "8"}), 8),
        (raised("ApiException", status=503, headers={b"x": 1, "retry-after": 9}), 9),
        (raised("RateLimited", status=429, retry_after=2.0), None),
        (raised("RateLimited", status=429, retry_after=10), 10),
        (raised("RateLimited", status=429, retry_after=timedelta(seconds=11)), None),
        (botocore_error(429, "TooManyRequestsException", **{"retry-after": "12"}), 12),
        (requests.HTTPError(response=response(429, retry_after="Fri, 31 Dec 9999 23:59:59 GMT")), 86400),
        (requests.HTTPError(response=response(429, retry_after="soon")), None),
    ],
    ids=repr,
)
def test_how_long_a_service_wants_to_be_left_alone(error: BaseException, seconds: int | None) -> None:
    asked = failure_of(error).retry_in
    assert asked == (None if seconds is None else timedelta(seconds=seconds))


class Nasty(Exception):
    """Every look at it raises."""

    def __str__(self) -> str:
        raise RuntimeError("no words")

    @property
    def response(self) -> Any:
        raise RuntimeError("no response")

    @property
    def status_code(self) -> int:
        raise RuntimeError("no status")


def test_an_exception_that_cannot_be_looked_at_is_in_doubt() -> None:
    assert meaning(Nasty()) == IN_DOUBT


@pytest.mark.parametrize(
    "error",
    [
        requests.HTTPError("503 Server Error for url: https://user:SECRET@api.example.com/v1?key=SECRET"),
        raised("SdkError", "POST https://api.example.com/SECRET/send failed", status_code=503),
        requests.HTTPError(response=response(503, '{"at": "https://api.example.com/x?key=SECRET"}')),
        caused(kind("SdkError")("https://api.example.com?k=SECRET"), ConnectionRefusedError(111, "refused")),
    ],
    ids=repr,
)
def test_of_a_url_no_more_than_its_host_is_kept(error: BaseException) -> None:
    assert "SECRET" not in str(failure_of(error).reply)


def test_the_words_are_those_of_the_operating_system_where_it_has_some() -> None:
    error = caused(kind("SdkError")("sending failed"), ConnectionRefusedError(111, "Connection refused"))
    assert failure_of(error).reply.text == "ConnectionRefusedError: Connection refused"


def test_recipients_that_another_client_of_smtp_names_have_an_answer_each() -> None:
    one = raised("SMTPRecipientRefused", code=550, message="nobody", recipient="ana@example.com")
    failure = failure_of(raised("SMTPRecipientsRefused", recipients=[one]))
    assert {recipient: reply.code for recipient, reply in failure.recipients.items()} == {"ana@example.com": 550}
