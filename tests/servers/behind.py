"""What stands behind a real mail server: rules about recipients and senders, and a sink that counts what arrives."""

from __future__ import annotations

import socketserver
import threading
from collections import Counter
from contextlib import suppress
from typing import ClassVar

#: By how an address begins: what is said of it, and whether only the first time.
_RULES = {
    "nobody": ("550 5.1.1 no such user", False),
    "full": ("452 4.2.2 mailbox full", False),
    "later": ("451 4.7.1 try again later", True),
    "hangup": ("421 4.3.2 closing", True),
}


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, handler: type[socketserver.BaseRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.port: int = self.server_address[1]
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()


class Rules(_Server):
    """Answers what is to be said of an address, as Postfix's and sendmail's ``socketmap`` asks: ``5:name key,``."""

    def __init__(self) -> None:
        super().__init__(_RulesHandler)
        self._seen: set[str] = set()

    def said_of(self, address: str, stage: str) -> str:
        """The reply that refuses a recipient, or the sender at another stage, now: or nothing."""
        local = address.strip("<>").partition("@")[0]
        for beginning, (reply, once) in _RULES.items():
            if local.startswith(beginning if stage == "rcpt" else f"{beginning}-{stage}"):
                with self.lock:
                    if once and local in self._seen:
                        return ""
                    self._seen.add(local)
                return reply
        return ""


class _RulesHandler(socketserver.StreamRequestHandler):
    server: Rules

    def handle(self) -> None:
        with suppress(OSError, ValueError):
            while True:
                length = b""
                while (byte := self.rfile.read(1)) != b":":
                    if not byte:
                        return
                    length += byte
                stage, _, key = self.rfile.read(int(length)).decode(errors="replace").partition(" ")
                self.rfile.read(1)
                said = self.server.said_of(key, stage)
                answer = f"OK {said}" if said else "NOTFOUND "
                self.wfile.write(f"{len(answer)}:{answer},".encode())


class Sink(_Server):
    """Takes every mail, and counts each recipient of it by the mail's ``Message-ID``."""

    def __init__(self) -> None:
        super().__init__(_SinkHandler)
        self.delivered: Counter[tuple[str, str]] = Counter()


class _SinkHandler(socketserver.StreamRequestHandler):
    server: Sink
    greeting: ClassVar = b"220 sink ESMTP\r\n"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        recipients: list[str] = []
        with suppress(OSError):
            self.wfile.write(self.greeting)
            while line := self.rfile.readline():
                verb = line[:4].upper().strip()
                if verb == b"EHLO":
                    self.wfile.write(b"250-sink\r\n250-8BITMIME\r\n250 PIPELINING\r\n")
                    continue
                if verb in (b"MAIL", b"RSET", b"HELO"):
                    recipients = []
                elif verb == b"RCPT":
                    recipients.append(line.split(b"<")[1].split(b">")[0].decode())
                elif verb == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    self._read_mail(recipients)
                elif verb == b"QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                self.wfile.write(b"250 ok\r\n")

    def _read_mail(self, recipients: list[str]) -> None:
        message_id = ""
        in_header = True
        while (line := self.rfile.readline()) and line != b".\r\n":
            in_header = in_header and line != b"\r\n"
            if in_header and line.lower().startswith(b"message-id:"):
                message_id = line.partition(b":")[2].strip().decode()
        if line:
            with self.server.lock:
                self.server.delivered.update((message_id, one) for one in recipients)
