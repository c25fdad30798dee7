"""What monitoring and load balancers ask by HTTP."""

from __future__ import annotations

import hmac
import threading
import time

from django.contrib.auth.decorators import login_not_required
from django.db import Error
from django.http import HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_safe

from ..conf import mailer_settings
from ..exceptions import NotMigrated
from ..health import check_health
from . import prometheus

# Seconds for which a process gives the same answer: load balancers ask often, and anybody may.
_HEALTH_KEPT = 5.0


@login_not_required
@require_safe
@never_cache
@sensitive_variables()
def metrics(request: HttpRequest) -> HttpResponse:
    """All metrics in Prometheus' text format, for clients with ``METRICS_TOKEN`` as bearer token.

    Returns:
        200; 403 where no ``METRICS_TOKEN`` is set, 401 without it, 503 while the database is away.
    """
    token = mailer_settings().METRICS_TOKEN
    if token is None:
        return _text("CONGRESSY_MAILER['METRICS_TOKEN'] is not set, so everybody is refused.\n", 403)
    kind, _, shown = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode(), token.encode()):
        response = _text("", 401)
        response["WWW-Authenticate"] = "Bearer"
        return response
    try:
        return HttpResponse(prometheus.exposition(), content_type=prometheus.CONTENT_TYPE)
    except (Error, NotMigrated):
        return _text("The database is away.\n", 503)


class _Answer:
    """The last answer of this process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.status = 503
        self.until = 0.0


_answer = _Answer()


def forget_answer() -> None:
    """Look again at the next request for ``health``."""
    _answer.until = 0.0


@login_not_required
@require_safe
@never_cache
def health(request: HttpRequest) -> HttpResponse:
    """For load balancers and uptime checks: 200 while mail is moving, else 503. It never says why: anybody may ask."""
    with _answer.lock:
        if time.monotonic() >= _answer.until:
            try:
                _answer.status = 200 if check_health().ok else 503
            except (Error, NotMigrated):
                _answer.status = 503
            _answer.until = time.monotonic() + _HEALTH_KEPT
        status = _answer.status
    return _text("Mail is moving.\n" if status == 200 else "Mail is not moving.\n", status)


def _text(text: str, status: int) -> HttpResponse:
    return HttpResponse(text, status=status, content_type="text/plain; charset=utf-8")
