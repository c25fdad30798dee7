"""A DNS server on the loopback that knows what a test tells it, and nothing else."""

from __future__ import annotations

import socket
import threading
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class DnsServer:
    """Answers questions over UDP. As a context manager it runs from entry to exit."""

    host = "127.0.0.1"

    def __init__(self) -> None:
        #: Records by name and kind, such as ``{("example.com", "TXT"): ['"v=spf1 -all"']}``.
        self.records: dict[tuple[str, str], list[str]] = {}
        #: It says that it failed, whatever it is asked.
        self.fails = False
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((self.host, 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="dns-server", daemon=True)

    def __enter__(self) -> DnsServer:
        self._thread.start()
        return self

    def __exit__(self, *args: Any) -> None:
        # An empty datagram ends it.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(b"", (self.host, self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            wire, sender = self._socket.recvfrom(4096)
            if not wire:
                return
            self._socket.sendto(self._answer(dns.message.from_wire(wire)).to_wire(), sender)

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        (question,) = query.question
        name = question.name.to_text().rstrip(".")
        if self.fails:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif (name, question.rdtype.name) in self.records:
            texts = self.records[name, question.rdtype.name]
            response.answer.append(dns.rrset.from_text_list(question.name, 60, "IN", question.rdtype.name, texts))
        elif not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        return response
