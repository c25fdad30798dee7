"""What an alias of a mail backend stands for: through a queue for what is behind it, in a test for a mailbox in memory.

A host that has all of its mail queued names :class:`congressy_mailer.backends.EmailBackend` where Django looks for a
backend. A worker delivers over the one behind it, which the ``using`` of its options names.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import django
from django.conf import settings
from django.core.mail.backends.base import BaseEmailBackend
from django.utils.module_loading import import_string

from ..conf import mailer_settings
from ..conf.project import has_servers_of_project, transport_of_project
from ..exceptions import TransportUnavailable

_LOCMEM = "django.core.mail.backends.locmem.EmailBackend"


class QueueingBackend(BaseEmailBackend):
    """A backend that stores mail for a worker: no worker delivers over it."""


def mailers() -> Mapping[str, Any] | None:
    """``MAILERS``; ``None`` where the host has ``EMAIL_BACKEND``."""
    configured = getattr(settings, "MAILERS", None) if django.VERSION >= (6, 1) else None
    return configured if isinstance(configured, Mapping) else None


def delivery_alias(using: str) -> str | None:
    """The alias that a worker delivers over: what is behind the queue where ``using`` names one.

    Args:
        using: an alias; empty: the default one.

    Returns:
        ``None`` where that is Django's SMTP backend with ``EMAIL_*``, which has no alias.

    Raises:
        TransportUnavailable: a queue has no backend behind it, or another queue.
    """
    if not is_queue(using):
        return using
    target = target_of(using)
    if not target:
        if using or mailers() is not None:
            raise TransportUnavailable(f"{_name(using)} queues mail, and its OPTIONS name no using to deliver it over.")
        return None
    if is_queue(target):
        raise TransportUnavailable(f"{_name(using)} queues mail for {target!r}, which queues it again.")
    return target


def storage_alias(using: str) -> str:
    """The alias that a message is stored with: the same one for all the host's aliases of a server.

    Two aliases would have two connection pools, two rates and two limits of connections.

    Args:
        using: an alias; empty: the default one.
    """
    if not using or (using == "default" and mailers() is not None):
        return ""
    try:
        target = delivery_alias(using)
        return "" if target is None or target == delivery_alias("") else target
    except TransportUnavailable:
        # The worker says so, and check congressy_mailer.E023.
        return using


def is_queue(using: str) -> bool:
    """Whether an alias names a backend that queues; the default one where it is empty."""
    try:
        found = import_string(backend_path(using))
    except Exception:
        # A wrong path is reported where the backend is made.
        return False
    return isinstance(found, type) and issubclass(found, QueueingBackend)


def target_of(using: str) -> str:
    """The alias that a queue's options name; empty where they name none."""
    target = queue_options(using).get("using")
    return target if isinstance(target, str) else ""


def queue_options(using: str) -> Mapping[str, Any]:
    """The options that the host has configured for an alias: ``BACKEND_OPTIONS`` for ``EMAIL_BACKEND``.

    Args:
        using: an alias; empty: the default one.
    """
    if not using and mailers() is None:
        return mailer_settings().BACKEND_OPTIONS
    options = _configuration(using).get("OPTIONS")
    return options if isinstance(options, Mapping) else {}


def backend_path(using: str) -> Any:
    """Where the class of an alias's backend is, as the host has configured it."""
    if not using and mailers() is None:
        return settings.EMAIL_BACKEND
    return _configuration(using).get("BACKEND", "")


def _configuration(using: str) -> Mapping[str, Any]:
    found = (mailers() or {}).get(using or "default") or mailer_settings().TRANSPORTS.get(using)
    return found if isinstance(found, Mapping) else {}


def _name(using: str) -> str:
    return f"The mail backend {using or 'default'!r}"


def collects_for_tests(using: str | None) -> bool:
    """Whether mail over an alias is collected in ``mail.outbox``, because a test is running.

    Django's test runner does so for ``EMAIL_BACKEND`` and for everything in ``MAILERS``, and knows nothing of
    ``TRANSPORTS`` or of what is behind a queue: without this a test would send real mail.

    Args:
        using: alias in ``TRANSPORTS``; ``None``: Django's SMTP backend with ``EMAIL_*``.

    Returns:
        False outside of tests, and for what a test itself has defined.
    """
    if not _is_under_test():
        return False
    if using is None:
        return has_servers_of_project()
    return bool(mailer_settings().TRANSPORTS[using] == transport_of_project(using))


def _is_under_test() -> bool:
    # Not imported for this: a process that runs tests has it.
    utils = sys.modules.get("django.test.utils")
    if utils is not None and hasattr(utils._TestState, "saved_data"):
        return True
    # A runner of another kind, whose settings do as Django's runner would.
    return bool(backend_path("") == _LOCMEM)
