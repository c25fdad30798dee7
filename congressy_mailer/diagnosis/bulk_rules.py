"""What Gmail and Yahoo ask of those who send to many, since 2024: one click to unsubscribe, and few complaints."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import metrics, outbox
from ..conf import mailer_settings
from ..models import Batch, Message, clock
from ..sparkpost.webhook_api import own_target
from .findings import Finding, error, examination, good, skipped, warning

# Of the newest mails.
_LOOKED_AT = 500

#: Shares of complaints at which providers begin to hold mail back, and at which they refuse it.
_GOOD_COMPLAINTS, _MOST_COMPLAINTS = 0.001, 0.003
# Fewer mails tell nothing of the share.
_ENOUGH_MAILS = 1000
_COMPLAINTS_OF = timedelta(days=7)


@examination("bulk-one-click", gettext_lazy("Rules for bulk mail: one click to unsubscribe"))
def examine_one_click() -> Iterator[Finding]:
    """Checks that the newest mail that is not transactional has one-click unsubscription (RFC 8058).

    It requires ``SITE_URL`` with ``https``, and ``congressy_mailer.urls`` in the URLs of the site.
    """
    newest = Message.objects.using(outbox.database()).order_by("-id").values_list("transactional", flat=True)
    batches = Batch.objects.using(outbox.database()).order_by("-id").values_list("transactional", flat=True)
    if all(newest[:_LOOKED_AT]) and all(batches[:_LOOKED_AT]):
        yield skipped(_("None of the newest mail is marketing: all of it is transactional."))
        return
    advice = _('Set CONGRESSY_MAILER["SITE_URL"] to your https address, and add the URLs of congressy_mailer.')
    site = mailer_settings().SITE_URL
    try:
        own_target()
    except Exception:
        yield error(_("Marketing mail has no link to unsubscribe in one click."), advice)
        return
    if site is not None and not site.startswith("https://"):
        yield error(_("The link to unsubscribe in one click is not https: mail programs do not offer it."), advice)


@examination("bulk-complaints", gettext_lazy("Rules for bulk mail: complaints"))
def examine_complaints() -> Iterator[Finding]:
    """Compares the complaints of the last seven days with the delivered mail.

    Gmail asks senders to stay below 0.1 % and never to reach 0.3 %, from which on it refuses mail.
    """
    now = clock.now().replace(minute=0, second=0, microsecond=0)
    counted: Counter[str] = Counter()
    for counts in metrics.hours(now - _COMPLAINTS_OF).values():
        for (*_key, name), count in counts.items():
            counted[name] += count
    arrived, complaints = counted[metrics.DELIVERED], counted[metrics.COMPLAINED]
    if arrived < _ENOUGH_MAILS:
        yield skipped(_("Too few mails arrived in the last seven days to tell."))
        return
    share = complaints / arrived
    text = _("%(share).2f %% of the mail of the last seven days was reported as spam.") % {"share": 100 * share}
    advice = _(
        "Write only to recipients who asked for it, leave out those who no longer open it, and make unsubscribing easy."
    )
    if share >= _MOST_COMPLAINTS:
        yield error(text, advice)
    elif share >= _GOOD_COMPLAINTS:
        yield warning(text, advice)
    else:
        yield good(text)
