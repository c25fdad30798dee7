"""The account at SparkPost: its key and what that may do, its sending domains, its webhook."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import outbox
from ..conf import mailer_settings
from ..exceptions import SparkPostError
from ..models import Message, Retention, State, WebhookBatch, clock
from ..sparkpost.account_api import account, sending_domain
from ..sparkpost.webhook_api import own_target, webhooks
from .findings import Finding, error, examination, good, skipped, warning
from .senders import sending_domains

# Events come within seconds; a provider that is slow to take mail has events of its own.
_EVENTS_WITHIN = timedelta(minutes=30)
_LOOKED_BACK = timedelta(days=1)


def _no_key() -> Finding | None:
    if mailer_settings().SPARKPOST_API_KEY is None:
        return skipped(_("There is no SPARKPOST_API_KEY: SparkPost's HTTP API is not used."))
    return None


@examination("sparkpost-key", gettext_lazy("SparkPost: API key and its permissions"))
def examine_key() -> Iterator[Finding]:
    """Requests the suppression list, the webhooks and the sending domains from SparkPost's API with
    ``SPARKPOST_API_KEY``.

    Without the permission *Suppression Lists: Read/Write* the lists are not synchronised, and without *Event Webhooks:
    Read/Write* the commands cannot register the webhook. Permissions are chosen when the key is created.
    """
    if no_key := _no_key():
        yield no_key
        return
    missing = []
    for permission, ask in account().questions().items():
        try:
            ask()
        except SparkPostError as failure:
            if failure.status == 401:
                yield error(
                    _("SparkPost does not know the API key."),
                    _("Make a new one in SparkPost's app, under API Keys, and put it into the settings. An account in "
                      "Europe has keys of its own, for SPARKPOST_API_HOST api.eu.sparkpost.com."),
                )  # fmt: skip
                return
            if failure.status != 403:
                yield error(str(failure), _("Look at SPARKPOST_API_HOST, and whether this host may reach it."))
                return
            missing.append(permission)
    if missing:
        yield warning(
            _("The API key lacks permissions: %(names)s.") % {"names": ", ".join(missing)},
            _("Make a key with them in SparkPost's app, under API Keys."),
        )


@examination("sparkpost-domain", gettext_lazy("SparkPost: sending domains"))
def examine_domains() -> Iterator[Finding]:
    """Asks SparkPost whether the domain of each sender is known, its ownership verified, and its DKIM key in the DNS.

    SparkPost refuses mail from an unknown domain. DKIM of the sender's own domain aligns mail for DMARC, which Gmail
    and Yahoo require of bulk senders.
    """
    if no_key := _no_key():
        yield no_key
        return
    for domain in sending_domains():
        try:
            found = sending_domain(domain)
        except SparkPostError as failure:
            if failure.status == 404:
                yield error(
                    _("SparkPost does not know the sending domain %(domain)s, and refuses its mail.")
                    % {"domain": domain},
                    _("Add it in SparkPost's app, under Sending Domains, and put its records into the DNS."),
                )
                continue
            yield skipped(str(failure))
            return
        status = found.get("status") or {}
        if not status.get("ownership_verified"):
            yield error(
                _("The sending domain %(domain)s is not verified at SparkPost.") % {"domain": domain},
                _("Put its records into the DNS, and have SparkPost verify it, under Sending Domains."),
            )
        elif status.get("compliance_status", "valid") != "valid":
            yield error(
                _("SparkPost's compliance team has blocked the sending domain %(domain)s.") % {"domain": domain},
                _("Write to SparkPost's support."),
            )
        elif status.get("dkim_status") != "valid":
            yield error(
                _("The DKIM key of %(domain)s is not in the DNS: its mail is signed for another domain.")
                % {"domain": domain},
                _("Add the TXT record that SparkPost's app shows, under Sending Domains."),
            )
        else:
            yield good(_("%(domain)s is verified.") % {"domain": domain})


@examination("sparkpost-webhook", gettext_lazy("SparkPost: webhook, and whether it arrives"))
def examine_webhook() -> Iterator[Finding]:
    """Asks SparkPost whether a webhook posts to this site, and checks that events arrived for the mail of the last day.

    Without events, bounces and complaints are not recorded, and add no address to the suppression list.
    """
    if no_key := _no_key():
        yield no_key
        return
    try:
        target = own_target()
        registered = [one for one in webhooks().list() if str(one.get("target", "")).rstrip("/") == target.rstrip("/")]
    except SparkPostError as failure:
        yield skipped(str(failure))
        return
    if not registered:
        yield error(
            _("No webhook of SparkPost posts to %(target)s.") % {"target": target},
            _("Run: python manage.py mailer sparkpost webhook create"),
        )
        return
    if not any(one.get("active", True) for one in registered):
        yield error(
            _("The webhook to %(target)s is switched off at SparkPost.") % {"target": target},
            _("Switch it on in SparkPost's app, under Webhooks. SparkPost does so with targets that do not answer."),
        )
        return
    yield from _examine_arrival()


def _examine_arrival() -> Iterator[Finding]:
    now = clock.now()
    last = WebhookBatch.objects.using(outbox.database()).order_by("-received_at").first()
    sent = Message.objects.using(outbox.database()).filter(
        retention__in=(Retention.WHOLE, Retention.SENSITIVE, Retention.DROPPED),
        state=State.SENT,
        finished_at__gt=now - _LOOKED_BACK,
        finished_at__lt=now - _EVENTS_WITHIN,
    )
    if last is not None and last.received_at > now - _LOOKED_BACK:
        yield good(_("Events arrive."))
    elif sent.exists():
        yield error(
            _("Mail was sent within the last day, and no event of SparkPost's has come."),
            _("Run: python manage.py mailer sparkpost webhook list, and test with the id that it shows. A firewall, a "
              "login of the site's own, or a changed WEBHOOK_SECRETS may refuse what SparkPost posts."),
        )  # fmt: skip
    else:
        yield skipped(_("No mail was sent within the last day that events could tell of."))
