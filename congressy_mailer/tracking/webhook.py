"""Where SparkPost posts its events (API reference, "Event Webhooks"): stored first, answered at once, processed later.

A post says who has bounced and who has complained, and so who gets no more mail: nothing of it is read
before the caller has shown one of ``WEBHOOK_SECRETS``.
"""

from __future__ import annotations

import hmac
import logging
import time
from base64 import b64decode
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from typing import BinaryIO, cast

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from ..conf import mailer_settings
from ..sparkpost import TOKEN_HEADER
from ..sparkpost.event_batches import RELAY_MESSAGE, TooDeep, read_items
from ..sparkpost.events import raw_events
from . import inbox

logger = logging.getLogger("congressy_mailer.sparkpost")

_BATCH_ID = "X-MessageSystems-Batch-ID"


class _Refused(Exception):
    """A request that nothing is stored of."""

    def __init__(self, status: int, why: str, answer: str = "") -> None:
        super().__init__(why)
        self.status = status
        self.answer = answer


# SparkPost has no cookie and no session: it authenticates by the credentials of its webhook.
@csrf_exempt
@login_not_required
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    """Store a batch of events, and answer.

    Returns:
        200 where it is stored, was stored before, or is a ping. Anything else makes SparkPost try again, for eight
        hours: 401 without the right credentials (which makes it fetch a new OAuth token), 403 where no
        ``WEBHOOK_SECRETS`` are set, 411 where the body has no length and the web server does not tell its end, 413
        above ``WEBHOOK_MAX_BYTES``, 415 where the body is compressed, 400 where it is no batch of events.
    """
    try:
        _check_credentials(request)
        body = _body(request)
        events = _count_events(body, request.path)
    except _Refused as refused:
        _log_refusal(refused)
        # SparkPost shows the account's people what its target has answered.
        response = HttpResponse(refused.answer, status=refused.status, content_type="text/plain")
        if refused.status == 401:
            response["WWW-Authenticate"] = 'Basic realm="SparkPost events"'
        return response
    if events:
        ticket = inbox.store(request.headers.get(_BATCH_ID, ""), body, events)
        if ticket is not None:
            inbox.publish_webhook_on_commit(ticket)
    return HttpResponse()


@sensitive_variables()
def _check_credentials(request: HttpRequest) -> None:
    secrets = mailer_settings().WEBHOOK_SECRETS
    if not secrets:
        raise _Refused(403, "CONGRESSY_MAILER['WEBHOOK_SECRETS'] is not set, so everybody is refused.")
    digests = [_digest(one) for one in _credentials(request)]
    accepted = False
    # All with all, also after a match: the duration must not reveal how near a guess is.
    for secret in secrets:
        expected = _digest(secret.encode())
        for one in digests:
            accepted |= hmac.compare_digest(expected, one)
    if not accepted:
        what = "wrong credentials" if digests else "no credentials"
        raise _Refused(401, f"It came with {what}: see CONGRESSY_MAILER['WEBHOOK_SECRETS'].")


@sensitive_variables()
def _credentials(request: HttpRequest) -> Iterable[bytes]:
    """The credentials of a request, written as those of the settings."""
    # As the bytes that came: WSGI (PEP 3333) shows them as Latin-1.
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    value = value.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):
            yield b"basic " + b64decode(value, validate=True)
    elif scheme.lower() == "bearer":
        yield b"bearer " + value.encode("latin-1", "backslashreplace")
    token = request.headers.get(TOKEN_HEADER)
    if token:
        yield b"token " + token.strip().encode("latin-1", "backslashreplace")


@sensitive_variables()
def _digest(credentials: bytes) -> bytes:
    """Of one length, so that the time to compare two does not tell that of the secret."""
    return sha256(credentials).digest()


def _body(request: HttpRequest) -> bytes:
    """The body, which Django would not read beyond ``DATA_UPLOAD_MAX_MEMORY_SIZE``."""
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise _Refused(415, "The body is compressed, which SparkPost's are not.")
    max_bytes = mailer_settings().WEBHOOK_MAX_BYTES
    too_large = _Refused(413, f"The body has more than {max_bytes:,} bytes: see CONGRESSY_MAILER['WEBHOOK_MAX_BYTES'].")
    # Without being read, where it says so itself.
    with suppress(ValueError):
        if int(request.META.get("CONTENT_LENGTH") or 0) > max_bytes:
            raise too_large
    try:
        body = _stream(request).read(max_bytes + 1)
    except (UnreadablePostError, OSError):
        raise _Refused(400, "The caller went away in the middle of the body.") from None
    if len(body) > max_bytes:
        raise too_large
    return body


def _stream(request: HttpRequest) -> HttpRequest | BinaryIO:
    """Where the body is read from.

    Django reads no body without a ``Content-Length`` under WSGI. A caller or proxy that sends in chunks (RFC 9112 §7.1)
    gives none; the web server then tells the end of its stream, and says so by ``wsgi.input_terminated``.
    """
    environ = getattr(request, "environ", {})
    if request.META.get("CONTENT_LENGTH") or not request.headers.get("Transfer-Encoding") or not environ:
        return request
    if not environ.get("wsgi.input_terminated"):
        raise _Refused(
            411,
            "The body came in chunks, which this web server does not pass on: have the proxy before it buffer requests "
            "(nginx: proxy_request_buffering on).",
        )
    return cast(BinaryIO, environ["wsgi.input"])


def _count_events(body: bytes, path: str) -> int:
    """How many events there are in a batch; a ping has none."""
    events = relayed = 0
    try:
        for item in read_items(body):
            if isinstance(item, TooDeep):
                events += 1
                continue
            for name, _ in raw_events([item]):
                events += 1
                relayed += name == RELAY_MESSAGE
    except ValueError as error:
        raise _Refused(400, str(error) if type(error) is ValueError else "The body is not JSON.") from None
    if relayed:
        mixed_up = f"This is inbound mail, and {path} takes events: give the relay webhook a target of its own."
        if relayed == events:
            # SparkPost keeps it meanwhile and tries again.
            raise _Refused(400, mixed_up, mixed_up)
        logger.error("A post to the webhook for SparkPost's events has inbound mail among its events. %s", mixed_up)
    return events


# When each kind of refusal may be logged again. Anybody can post here, and must not fill the log.
_next_log_at: dict[int, float] = {}
_LOG_INTERVAL = 60.0


def forget_refusals() -> None:
    """Log the next refusal of each kind."""
    _next_log_at.clear()


def _log_refusal(refused: _Refused) -> None:
    """One line, without anything that came with the request; no more than one a minute of each kind."""
    now = time.monotonic()
    if refused.status in (401, 403) or refused.answer:
        if now < _next_log_at.get(refused.status, 0):
            return
        _next_log_at[refused.status] = now + _LOG_INTERVAL
    logger.warning("A post to the webhook for SparkPost's events is answered %d. %s", refused.status, refused)
