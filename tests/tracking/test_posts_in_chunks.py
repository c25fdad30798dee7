"""A post in chunks, as web servers pass it on."""

from __future__ import annotations

import json
import sys
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import pytest
from django.conf import settings as django_settings

from congressy_mailer.models import WebhookBatch
from testbed.processes import Process, free_port
from tests.conftest import database_url, wait_for
from tests.support.mails import queue_message
from tests.support.sparkpost_events import batch_body, event
from tests.support.webhook import SECRETS, URL

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("webhook_secrets")]


class WebServer(NamedTuple):
    """How a web server is started on a port."""

    command: str
    #: Whether it passes a body on that comes in chunks.
    takes_chunks: bool


WEB_SERVERS = [
    WebServer("gunicorn --bind 127.0.0.1:{port} --timeout 120 tests.project.web:wsgi", takes_chunks=True),
    WebServer("uvicorn --host 127.0.0.1 --port {port} --log-level info tests.project.web:asgi", takes_chunks=True),
    WebServer("tests.project.web {port}", takes_chunks=False),
]


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("server", WEB_SERVERS, ids=lambda server: server.command.split()[0])
def test_a_body_in_chunks_is_stored_or_refused_with_advice(server: WebServer, tmp_path: Path) -> None:
    message = queue_message()
    port = free_port()
    process = Process(
        "Web server",
        [sys.executable, "-m", *server.command.format(port=port).split()],
        tmp_path / "web.log",
        environment={
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "MAILER_TEST_DIRECTORY": str(django_settings.SCRATCH),
            "MAILER_TEST_WORKER": "1",
            "MAILER_TEST_OPTIONS": json.dumps({"WEBHOOK_SECRETS": SECRETS}),
            "DATABASE_URL": database_url(),
        },
        directory=Path(__file__).parent.parent.parent,
    )
    try:
        wait_for(lambda: answers(port), 60, "the web server")
        told = batch_body(event("delivery", message), *(event("open", message, at) for at in range(2000)))
        assert post_over_http(port, told, chunked=False) == 200
        # A batch of its own.
        assert post_over_http(port, told + b" ", chunked=True) == (200 if server.takes_chunks else 411)
        assert WebhookBatch.objects.count() == 1 + server.takes_chunks
        assert {batch.events for batch in WebhookBatch.objects.all()} == {2001}
        if not server.takes_chunks:
            assert "proxy_request_buffering on" in process.output()
    finally:
        process.stop()


def post_over_http(port: int, body: bytes, *, chunked: bool) -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.putrequest("POST", URL)
    connection.putheader("Authorization", "Bearer a-token")
    connection.putheader(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))))
    connection.endheaders()
    try:
        for start in range(0, len(body), 60_000):
            piece = body[start : start + 60_000]
            connection.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            connection.send(b"0\r\n\r\n")
    except OSError:
        # It is answered, and the rest not read.
        pass
    with connection.getresponse() as response:
        status = response.status
    connection.close()
    return status


def answers(port: int) -> bool:
    """Whether a web server serves this port."""
    try:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", URL)
        return connection.getresponse().status == 405
    except OSError:
        return False
