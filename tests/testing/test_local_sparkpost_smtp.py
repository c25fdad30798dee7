"""The local SparkPost's SMTP relay, with the client that Django has."""

from __future__ import annotations

import os
import smtplib
import socket
import ssl
from contextlib import suppress

import pytest
from django.core.mail import EmailMessage, send_mail

from congressy_mailer.testing.local_sparkpost.certificate import Certificate
from congressy_mailer.testing.local_sparkpost.replies import Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from congressy_mailer.testing.local_sparkpost.whole import WholeSparkPost
from tests.support.local_sparkpost import SENDER, types

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


class TestSmtp:
    def test_django_sends_and_events_follow(self, local_sparkpost: WholeSparkPost) -> None:
        header = '{"campaign_id": "inscricoes", "metadata": {"pedido": "7"}, "options": {"open_tracking": true}}'
        mail = EmailMessage("Oi", "Bom dia", SENDER, ["ana@x.example"], headers={"X-MSYS-API": header})
        assert mail.send() == 1
        (received,) = local_sparkpost.mailbox
        assert "X-MSYS-API" not in received.message
        assert received.message["Subject"] == "Oi"
        events = local_sparkpost.account.events_of("ana@x.example")
        assert [event["type"] for event in events] == ["injection", "delivery", "initial_open", "open"]
        assert {(event["campaign_id"], event["rcpt_meta"]["pedido"]) for event in events} == {("inscricoes", "7")}
        assert {event["message_id"] for event in events} == {received.queue_id}

    def test_a_bad_header_refuses_the_mail(self, local_sparkpost: WholeSparkPost) -> None:
        mail = EmailMessage("Oi", "Bom dia", SENDER, ["ana@x.example"], headers={"X-MSYS-API": "{"})
        with pytest.raises(Exception, match="JSON parsing error"):
            mail.send()
        assert len(local_sparkpost.mailbox) == 0
        assert local_sparkpost.account.events == []

    def test_each_recipient_has_a_fate_of_their_own(self, local_sparkpost: WholeSparkPost) -> None:
        send_mail("Oi", "Bom dia", SENDER, ["hard-bounce@x.example", "delayed-3@x.example"])
        assert types(local_sparkpost, "hard-bounce@x.example") == ["injection", "bounce"]
        assert types(local_sparkpost, "delayed-3@x.example") == ["injection", *["delay"] * 3, "delivery"]

    def test_who_bounced_is_not_tried_again(self, local_sparkpost: WholeSparkPost) -> None:
        for _ in range(2):
            send_mail("Oi", "Bom dia", SENDER, ["hard-bounce@x.example"])
        events = local_sparkpost.account.events_of("hard-bounce@x.example")
        assert [event["type"] for event in events] == ["injection", "bounce", "injection", "bounce"]
        assert events[-1]["bounce_class"] == "25"
        assert events[-1]["reason"].endswith("suppressed due to customer policy (Bounce Rule)")

    def test_who_complained_still_gets_what_is_transactional(self, local_sparkpost: WholeSparkPost) -> None:
        for transactional in ("false", "true", "false"):
            header = f'{{"options": {{"transactional": {transactional}}}}}'
            EmailMessage("x", "x", SENDER, ["complaint@x.example"], headers={"X-MSYS-API": header}).send()
        assert types(local_sparkpost, "complaint@x.example") == [
            *["injection", "delivery", "spam_complaint"] * 2,
            *["injection", "bounce"],
        ]


def bytes_to_the_end(connection: socket.socket) -> bytes:
    """What still comes over a connection, below TLS; an error where it does not end."""
    received = b""
    with socket.socket(fileno=os.dup(connection.fileno())) as below:
        below.settimeout(20)
        with suppress(ConnectionResetError):
            while some := below.recv(1000):
                received += some
    return received


@pytest.mark.parametrize("state", ["greeted", "in the TLS handshake", "logged in", "hung up"])
def test_a_server_that_stops_cuts_every_connection(certificate: Certificate, state: str) -> None:
    def hang_up(exchange: Exchange) -> str | None:
        return "421 4.3.0 come back later" if state == "hung up" and exchange.stage == Stage.MAIL else None

    server = LocalSparkPost(certificate=certificate, script=hang_up)
    server.start()
    client = smtplib.SMTP(server.host, server.port, timeout=20)
    try:
        if state == "in the TLS handshake":
            client.ehlo()
            assert client.docmd("STARTTLS")[0] == 220
        elif state != "greeted":
            client.starttls(context=ssl.create_default_context(cafile=str(certificate.authority)))
            client.login(server.user, server.password)
            # The client does not say goodbye.
            assert client.docmd("MAIL FROM:<ana@example.com>")[0] == (421 if state == "hung up" else 250)
        server.stop()
        bytes_to_the_end(client.sock)
        assert server.open_connections == 0
    finally:
        client.close()
        server.close()
