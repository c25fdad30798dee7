"""Where SparkPost posts its events (API reference, "Event Webhooks"): stored first, answered at once, processed later.

Whoever posts here says who has bounced and who has complained, and so who gets no more mail: nothing of it is read
before the caller has shown one of ``WEBHOOK_SECRETS``.
"""

from __future__ import annotations

import hmac
import json
import logging
import time
from base64 import b64decode
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_POST

from ..conf import mailer_settings
from ..sparkpost import TOKEN_HEADER
from ..sparkpost.events import raw_events
from . import inbox

logger = logging.getLogger("congressy_mailer.sparkpost")

_BATCH_ID = "X-MessageSystems-Batch-ID"


class _Refused(Exception):
    """A request that nothing is stored of."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


# SparkPost has no cookie and no session: what it shows is what it was told to show.
@csrf_exempt
@login_not_required
@require_POST
def receive(request: HttpRequest) -> HttpResponse:
    """Store a batch of events, and answer.

    Returns:
        200 where it is stored, was stored before, or is a ping. Anything else makes SparkPost try again, for eight
        hours: 401 without the right credentials (which makes it fetch a new OAuth token), 403 where no
        ``WEBHOOK_SECRETS`` are set, 413 above ``WEBHOOK_MAX_BYTES``, 415 where the body is compressed, 400 where it is
        no batch.
    """
    try:
        _check_credentials(request)
        body = _body(request)
        events = _count_events(body)
    except _Refused as refused:
        _log_refusal(refused)
        response = HttpResponse(status=refused.status)
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
    # All with all, whatever is found: the time that it takes tells nobody how near they are.
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
        body = request.read(max_bytes + 1)
    except UnreadablePostError:
        raise _Refused(400, "The caller went away in the middle of the body.") from None
    if len(body) > max_bytes:
        raise too_large
    return body


def _count_events(body: bytes) -> int:
    """How many events there are in a batch; a ping has none."""
    try:
        batch = json.loads(body)
    except RecursionError:
        raise _Refused(400, "The body is nested too deeply.") from None
    except ValueError:
        raise _Refused(400, "The body is not JSON.") from None
    if not isinstance(batch, list) or not all(isinstance(item, dict) for item in batch):
        raise _Refused(400, "The body is not a list of events.")
    return sum(1 for _ in raw_events(batch))


# By when each refusal may be told again. Anybody can post here, and must not fill the log.
_next_log_at: dict[int, float] = {}
_LOG_INTERVAL = 60.0


def _log_refusal(refused: _Refused) -> None:
    """One line, without anything that came with the request; no more than one a minute of each kind."""
    now = time.monotonic()
    if refused.status in (401, 403):
        if now < _next_log_at.get(refused.status, 0):
            return
        _next_log_at[refused.status] = now + _LOG_INTERVAL
    logger.warning("A post to the webhook for SparkPost's events is answered %d. %s", refused.status, refused)
