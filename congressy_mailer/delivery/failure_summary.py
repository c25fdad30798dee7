"""A mail to operators about what fails, at most one an hour, and over a mail backend that does not."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import metrics, outbox, periodic
from ..conf import mailer_settings
from ..metrics.counters import FAILED, HELD
from ..models import TransportStatus, clock
from ..replies import error_text
from ..transports.aliases import mailers
from ..transports.destinations import destination
from ..transports.host_backends import open_backend
from .availability import unavailable_backends

logger = logging.getLogger("congressy_mailer.delivery")

_INTERVAL = timedelta(hours=1)
# After no backend has taken it.
_RETRY = timedelta(minutes=5)

# Seconds that a server may be silent: the sweep waits for it.
_TIMEOUT = 15


def send_failure_summary() -> None:
    """Send a summary to ``FAILURE_SUMMARY_TO``, if there is something to tell and the last one was an hour ago.

    Never raises for what a mail backend does.
    """
    recipients = list(mailer_settings().FAILURE_SUMMARY_TO)
    if not recipients:
        return
    last = periodic.last_run(periodic.FAILURE_SUMMARY)
    now = clock.now()
    if last is not None and now - _INTERVAL < last <= now + _INTERVAL:
        return
    unavailable = unavailable_backends()
    with translation.override(settings.LANGUAGE_CODE):
        lines = list(_lines(unavailable))
        if not lines or not periodic.claim_run(periodic.FAILURE_SUMMARY, _INTERVAL):
            return
        if not _send(recipients, lines, {status.using for status in unavailable}):
            periodic.postpone_run(periodic.FAILURE_SUMMARY, _RETRY, _INTERVAL)


def _lines(unavailable: list[TransportStatus]) -> Iterator[str]:
    """What there is to tell. No recipient is named: this mail goes to people who look after all mail."""
    since = clock.now() - _INTERVAL
    counted: Counter[str] = Counter()
    for counts in metrics.minutes(since.replace(second=0, microsecond=0)).values():
        for (*_key, name), count in counts.items():
            counted[name] += count
    if failed := counted[FAILED]:
        text = ngettext(
            "%(count)d message failed within the last hour.",
            "%(count)d messages failed within the last hour.",
            failed,
        )
        yield text % {"count": failed}
    if held := counted[HELD]:
        text = ngettext(
            "%(count)d message was set aside (held) within the last hour, and waits for a person.",
            "%(count)d messages were set aside (held) within the last hour, and wait for a person.",
            held,
        )
        yield text % {"count": held}
    for status in unavailable:
        name = f"{status.using or outbox.DEFAULT_BACKEND} {status.sender_domain}".strip()
        text = _("The mail backend %(name)s is unavailable since %(since)s: %(reason)s")
        since_text = f"{status.unavailable_since:%Y-%m-%d %H:%M} UTC"
        yield text % {"name": name, "since": since_text, "reason": status.reason}
    for task in outbox.failing_tasks():
        text = _("The task for %(task)s failed %(count)d times, last with %(error)s.")
        yield text % {"task": task.task, "count": task.failures, "error": task.error}


def _send(recipients: list[str], lines: list[str], failing: set[str]) -> bool:
    """Send it over the first mail backend that takes it; returns whether one did."""
    advice = _("See manage.py mailer status and doctor. Mail that waits is not lost.")
    body = "\n".join([*(f"- {line}" for line in lines), "", advice])
    subject = settings.EMAIL_SUBJECT_PREFIX + _("Mail fails")
    mail = EmailMessage(subject, body, settings.SERVER_EMAIL, recipients)
    for using in _usable(failing):
        try:
            backend: Any = open_backend(using)
            if hasattr(backend, "timeout"):
                backend.timeout = min(backend.timeout, _TIMEOUT)
            if backend.send_messages([mail]):
                return True
        except Exception as error:
            logger.warning("The summary of failures cannot be sent over %r: %s", using or "default", error_text(error))
    logger.error("No mail backend takes the summary of failures: %s", " ".join(lines))
    return False


def _usable(failing: set[str]) -> Iterator[str]:
    """Aliases of mail backends that reach somebody and are not known to fail: the default one, then those that take
    over for it, then all others."""
    conf = mailer_settings()
    others = [*conf.FAILOVER, *conf.TRANSPORTS, *(mailers() or ())]
    pauses = outbox.active_pauses()
    for using in dict.fromkeys(["", *(alias for alias in others if alias != outbox.DEFAULT_BACKEND)]):
        if using in failing or pauses.backend(using) is not None:
            continue
        # Where nothing is sent for real, as in a test, it goes where all mail goes.
        if destination(using).is_real or not using:
            yield using
