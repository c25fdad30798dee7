"""The check for ``django-health-check``, version 4 and newer, which is given its path.

.. code-block:: python

   path("health/", HealthCheckView.as_view(checks=["congressy_mailer.monitoring.health_check.MailHealthCheck"]))
"""

from __future__ import annotations

import dataclasses

from asgiref.sync import sync_to_async
from health_check.base import HealthCheck
from health_check.exceptions import ServiceUnavailable

from ..health import check_health


@dataclasses.dataclass
class MailHealthCheck(HealthCheck):  # type: ignore[misc]
    """Whether mail is moving: what ``manage.py mailer health`` says."""

    async def run(self) -> None:
        """Look at the database.

        Raises:
            ServiceUnavailable: with each problem as a sentence.
        """
        health = await sync_to_async(check_health)()
        if not health.ok:
            raise ServiceUnavailable(" ".join(health.problems))
