"""What each system has to tell and to do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, ClassVar

from ..mails import Mail


class System(ABC):
    """A way of sending mail from Django in the background, configured as well as its documentation knows how.

    The methods that send run in the caller's process, after Django is set up; this class itself is needed before.
    """

    #: For people.
    name: ClassVar[str]
    #: What belongs into ``INSTALLED_APPS``.
    apps: ClassVar[tuple[str, ...]] = ()
    #: What it is configured with, for people.
    configuration: ClassVar[str]

    def is_installed(self) -> bool:
        """Whether this environment has it."""
        return all(find_spec(app) is not None for app in self.apps)

    def settings(self, vendor: str, connections: int) -> Mapping[str, Any]:
        """Settings of its own.

        Args:
            vendor: ``"postgresql"``, ``"sqlite"`` or ``"mysql"``.
            connections: how many a process may have to the mail server, where the system has a choice.
        """
        return {}

    def workers(self, vendor: str, processes: int) -> list[list[str]]:
        """What is to run in the background: arguments of Python, for one or more programs."""
        return [["-m", "celery", "-A", "benchmarks.project", "worker", "-c", str(processes), "-l", "WARNING"]]

    def prepare(self) -> None:
        """What its users do once, such as storing a template."""
        return

    @abstractmethod
    def send(self, mail: Mail) -> None:
        """One mail, as a view sends it: from the template and its context to where the caller may go on."""

    def send_many(self, mails: Iterable[Mail]) -> None:
        """Many mails at once, in the way that its documentation has for that."""
        for mail in mails:
            self.send(mail)

    def send_urgent(self, mail: Mail) -> None:
        """One mail that is to overtake bulk mail, where there is a way to say so."""
        self.send(mail)

    @abstractmethod
    def clear(self) -> None:
        """Drop all mail from the database."""


class OverHttp(System):
    """A system that can send over SparkPost's HTTP API as well."""

    @abstractmethod
    def settings_over_http(self, host: str, key: str) -> Mapping[str, Any]:
        """What it is configured with besides for that.

        Args:
            host: of the API, with its port.
            key: of the account.
        """


def empty(*models: Any) -> None:
    """Empty these tables, at once and for good."""
    from django.db import connection

    with connection.cursor() as cursor:
        names = [connection.ops.quote_name(model._meta.db_table) for model in models]
        if connection.vendor == "postgresql":
            cursor.execute(f"TRUNCATE {', '.join(names)} CASCADE")
        else:
            for name in names:
                cursor.execute(f"DELETE FROM {name}")  # noqa: S608
