"""System checks: mistakes in the configuration that would otherwise show only by mail that is not sent.

Every process of the host imports these modules, and few run the checks: what only they need is imported within them.
"""

from .backends import (
    check_api_key,
    check_backends,
    check_failover,
    check_interceptors,
    check_lease,
    check_smtp,
)
from .celery import check_broker, check_eager
from .content import check_attachment_storage, check_humanize, check_public_attachments
from .databases import check_installation, check_outbox_database
from .journal import check_journal_directory
from .production import check_backends_send, check_real_sender, check_redirect, check_sample_secrets
from .queue import check_error_mail, check_queue, check_tenants
from .settings import check_addresses, check_settings, check_time_zones
from .web import check_site_is_secure, check_unsubscribe_links, check_webhook, check_webhook_secrets

__all__ = [
    "check_addresses",
    "check_api_key",
    "check_attachment_storage",
    "check_backends",
    "check_backends_send",
    "check_broker",
    "check_eager",
    "check_error_mail",
    "check_failover",
    "check_humanize",
    "check_interceptors",
    "check_installation",
    "check_journal_directory",
    "check_lease",
    "check_outbox_database",
    "check_unsubscribe_links",
    "check_public_attachments",
    "check_queue",
    "check_real_sender",
    "check_redirect",
    "check_sample_secrets",
    "check_settings",
    "check_site_is_secure",
    "check_smtp",
    "check_tenants",
    "check_time_zones",
    "check_webhook",
    "check_webhook_secrets",
]
