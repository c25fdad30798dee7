"""System checks: faults of the configuration that would otherwise be found by mail that does not leave."""

from .backends import check_api_key, check_backends, check_failover, check_lease, check_smtp
from .celery import check_broker, check_eager
from .content import check_attachment_storage, check_humanize, check_public_attachments
from .settings import check_addresses, check_settings, check_time_zones
from .web import check_site_is_secure, check_unsubscribe_links, check_webhook, check_webhook_secrets

__all__ = [
    "check_addresses",
    "check_api_key",
    "check_attachment_storage",
    "check_backends",
    "check_broker",
    "check_eager",
    "check_failover",
    "check_humanize",
    "check_lease",
    "check_unsubscribe_links",
    "check_public_attachments",
    "check_settings",
    "check_site_is_secure",
    "check_smtp",
    "check_time_zones",
    "check_webhook",
    "check_webhook_secrets",
]
