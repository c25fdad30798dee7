"""A process that has loaded Django and Celery, and a copy of which becomes any process that needs them.

``python -m tests.support.fork_server SOCKET`` reads orders from the socket with that number, a JSON object on each
line, and answers with one: ``{"do": "start", …}`` has the fields of :class:`Start`, and its answer the new process's
number; ``{"do": "reap", "pid": …}`` waits for the end of one, and its answer has the status. It ends when the socket is
closed.

Nothing of what it loads reads settings, and nothing is of the package that is tested: the new process loads that and
sets up Django by its own environment, as one from a shell does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import socket
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

#: By its path: its package would be loaded with it.
_LIFETIME = Path(__file__).resolve().parents[2] / "congressy_mailer" / "testing" / "local_sparkpost" / "lifetime.py"
#: With what these import it is nearly all that a worker has loaded when it is ready.
_MODULES = (
    "celery.apps.worker",
    "celery.backends.base",
    "celery.bin.celery",
    "celery.bin.worker",
    "celery.concurrency.prefork",
    "celery.concurrency.thread",
    "celery.contrib.django.task",
    "celery.events.state",
    "celery.fixups.django",
    "celery.worker.autoscale",
    "celery.worker.consumer",
    "celery.worker.consumer.delayed_delivery",
    "celery.worker.strategy",
    "django.core.handlers.asgi",
    "django.core.mail.backends.console",
    "django.core.mail.backends.dummy",
    "django.core.mail.backends.filebased",
    "django.core.mail.backends.locmem",
    "django.core.mail.backends.smtp",
    "django.core.management.commands.makemigrations",
    "django.core.management.commands.migrate",
    "django.core.paginator",
    "django.core.serializers.json",
    "django.db.backends.sqlite3.base",
    "django.db.models",
    "django.forms",
    "django.template.loader_tags",
    "django.views.debug",
    "django.views.generic",
    "django.views.i18n",
    "dns.resolver",
    "jinja2",
    "kombu.transport.pyamqp",
    "kombu.transport.redis",
    "opentelemetry.sdk.metrics",
    "requests",
    "sparkpost",
    "throttled",
)
#: The driver of the database that the tests run on, by the scheme of its address.
_DRIVERS = {"mysql": "pymysql", "postgresql": "django.db.backends.postgresql.base"}


@dataclass(frozen=True)
class Start:
    """A process to be started, as ``python -m MODULE ARGUMENTS…`` would."""

    module: str
    arguments: list[str]
    #: All of it.
    environment: dict[str, str]
    #: The file for its output, and the one for its errors, which may be the same.
    log: str
    errors: str
    #: What it is sent when this server ends.
    on_parent_death: int

    def order(self) -> dict[str, Any]:
        return {"do": "start", **asdict(self)}


def _load() -> None:
    driver = _DRIVERS.get(os.environ.get("DATABASE_URL", "").partition(":")[0])
    for module in (*_MODULES, *([driver] if driver else [])):
        # Some are of later versions, or of packages that are not installed everywhere.
        with suppress(ImportError):
            importlib.import_module(module)
    # None of it is garbage: no copy need look, which would make its memory its own.
    gc.collect()
    gc.freeze()


def _serve(connection: socket.socket) -> Start:
    """Obey. Returns in the copies alone."""
    server = os.getpid()
    die_with_parent = runpy.run_path(str(_LIFETIME))["die_with_parent"]
    with connection, connection.makefile("r") as orders:
        for line in orders:
            order = json.loads(line)
            if order.pop("do") == "reap":
                answer = {"status": os.waitstatus_to_exitcode(os.waitpid(order["pid"], 0)[1])}
            else:
                start = Start(**order)
                ready, begun = os.pipe()
                pid = os.fork()
                if not pid:
                    die_with_parent(server, start.on_parent_death)
                    os.setsid()
                    os.close(ready)
                    os.close(begun)
                    return start
                # Who has the answer may kill its group, which has to be there.
                os.close(begun)
                os.read(ready, 1)
                os.close(ready)
                answer = {"pid": pid}
            connection.sendall(json.dumps(answer).encode() + b"\n")
    sys.exit()


def _become(start: Start) -> None:
    """Go on as the process that was asked for."""
    for descriptor, path in ((1, start.log), (2, start.errors)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    os.environ.clear()
    os.environ.update(start.environment)
    sys.argv[:] = [start.module, *start.arguments]
    runpy.run_module(start.module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _load()
    _become(_serve(socket.socket(fileno=int(sys.argv[1]))))
