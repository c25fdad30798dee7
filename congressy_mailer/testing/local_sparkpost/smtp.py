"""One SMTP session as SparkPost's relay holds it.

EHLO, order and wording follow the transcript in SparkPost's support article "SMTP Injection with STARTTLS using
swaks"; login, connection limits and idle time follow its SMTP API reference.
"""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypedDict

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from .account import Account
from .injection import inject
from .mailbox import Mailbox
from .msys_header import BadHeader
from .replies import (
    AUTH_ACCEPTED,
    AUTH_REFUSED,
    RECIPIENT_ACCEPTED,
    SEND_CONTENT,
    SENDER_ACCEPTED,
    TOO_MANY_MESSAGES,
    Action,
    AddressRules,
    Answer,
    Exchange,
    Raw,
    Script,
    Stage,
)

#: SMTP API reference: the user is the same for every account; a subaccount is named behind a colon.
USER = "SMTP_Injection"
_SUBACCOUNT = f"{USER}:X-MSYS-SUBACCOUNT="

# RFC 5321 §4.5.3.1.6: 1000 octets with the line break.
_LONGEST_LINE = 998


@dataclass
class Rules:
    """How the server treats its sessions; shared by all of them."""

    #: Where accepted mail goes.
    mailbox: Mailbox
    #: The only password that is accepted.
    password: str
    #: TLS of the server's side.
    tls: ssl.SSLContext
    #: Asked before anything else; ``None`` to leave everything to the rules.
    script: Script | None
    #: Seconds without a command after which the connection is closed.
    idle_seconds: float
    #: Messages on one connection; the next one is answered 421.
    messages_per_connection: int
    #: Makes the server's id of a mail.
    new_queue_id: Callable[[], str]
    #: Whose mail it is; ``None``: nothing follows a mail.
    account: Account | None = None
    #: Addresses that misbehave.
    addresses: AddressRules = field(default_factory=AddressRules)


class _Mail(TypedDict):
    """What is kept of a mail."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    connection: int
    queue_id: str


class SparkPostSession(SMTP):
    """A session; the hooks that ``aiosmtpd`` calls are in :class:`_Hooks`."""

    # The reader's buffer, and so the largest mail: beyond SparkPost's own limit of 20 MB, since that is not told.
    line_length_limit = 64 * 1024 * 1024
    # Addresses of 254 characters and their parameters (RFC 5321 §4.5.3.1.3) fit.
    command_size_limit = 1024
    AuthLoginUsernameChallenge = "Username:"
    AuthLoginPasswordChallenge = "Password:"

    def __init__(self, rules: Rules, connection: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(
            _Hooks(self),
            data_size_limit=None,
            hostname="local.sparkpost.example",
            ident="ESMTP ready",
            tls_context=rules.tls,
            require_starttls=True,
            auth_required=True,
            authenticator=self._check_login,
            timeout=rules.idle_seconds,
            loop=loop,
        )
        self.rules = rules
        self.connection = connection
        self.mails = 0
        #: Whether its connection is gone. Before it is made there is no transport, either.
        self.is_over = False
        #: What carries TLS as well.
        self._socket_transport: asyncio.BaseTransport | None = None
        self._greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The loop's word that there is a connection, and once more when TLS has begun on it."""
        self._socket_transport = self._socket_transport or transport
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        """The loop's word that the connection is gone."""
        super().connection_lost(error)
        self.is_over = True

    def cut(self) -> None:
        """End the connection at once. A transport of TLS that was closed already waits for the client's goodbye."""
        if self._socket_transport is not None:
            self._socket_transport.abort()  # type: ignore[attr-defined]

    async def push(self, status: Any) -> None:
        """Send a reply; the greeting, which has no hook of its own, is scripted here."""
        if not self._greeted:
            self._greeted = True
            status = await self.answer(Stage.CONNECT, str(status))
        reply = status.decode() if isinstance(status, bytes) else str(status)
        await super().push("\r\n".join(_multiline(reply.splitlines())).encode())
        if reply.startswith("421"):
            # RFC 5321 §3.8: the server closes after it.
            self.hang_up()

    def hang_up(self) -> NoReturn:
        """Close the connection once what has been written is gone, and obey none of the commands still unread."""
        if self.transport is not None:
            self.transport.close()
        # The base class's own way out of a session: its connection_lost() does the same.
        raise asyncio.CancelledError

    async def answer(self, stage: Stage, default: str, **details: Any) -> str:
        """The reply to give: the script's, else the usual one. Does not return where there is to be none."""
        scripted = await self._scripted(stage, details)
        if isinstance(scripted, Raw):
            self._writer.write(scripted.sent)
            scripted = scripted.then
        if scripted is Action.SILENCE:
            # Until the client leaves, or the idle time is over: either cancels this.
            await asyncio.get_running_loop().create_future()
        if isinstance(scripted, Action):
            if scripted is Action.KEEP_AND_HANG_UP:
                self.store_mail()
            self.hang_up()
        return default if scripted is None else scripted

    async def _scripted(self, stage: Stage, details: dict[str, Any]) -> Answer:
        if self.rules.script is None:
            return None
        envelope = self.envelope
        scripted = self.rules.script(
            Exchange(
                stage=stage,
                connection=self.connection,
                mail=self.mails,
                sender=(envelope.mail_from if envelope else None) or "",
                recipients=tuple(envelope.rcpt_tos) if envelope else (),
                **details,
            )
        )
        return await scripted if inspect.isawaitable(scripted) else scripted

    def store_mail(self) -> str:
        """Put the current mail into the mailbox; returns the server's id of it.

        Raises:
            BadHeader: SparkPost refuses the options in it.
        """
        envelope = self.envelope
        assert envelope is not None
        assert isinstance(envelope.content, bytes)
        queue_id = self.rules.new_queue_id()
        mail = _Mail(
            sender=envelope.mail_from or "",
            recipients=tuple(envelope.rcpt_tos),
            content=envelope.content,
            connection=self.connection,
            queue_id=queue_id,
        )
        if self.rules.account is None:
            self.rules.mailbox.add(**mail)
        else:
            inject(self.rules.account, self.rules.mailbox, **mail)
        return queue_id

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802
        """RFC 3207."""
        reply = await self.answer(Stage.STARTTLS, "")
        if reply:
            await self.push(reply)
        else:
            await super().smtp_STARTTLS(arg)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        """RFC 5321 §4.1.1.4. Nothing behind the final dot is read, for it may be the next command (RFC 2920)."""
        if await self.check_helo_needed() or await self.check_auth_needed("DATA"):
            return
        assert self.envelope is not None
        if not self.envelope.rcpt_tos:
            await self.push("503 5.5.1 RCPT TO first")
            return
        reply = await self.answer(Stage.DATA, SEND_CONTENT)
        await self.push(reply)
        if not reply.startswith("3"):
            self._set_post_data_state()  # type: ignore[no-untyped-call]
            return
        self.envelope.content = self.envelope.original_content = await self._read_content()
        # Reading it may have taken longer than the idle time.
        self._reset_timeout()
        if any(len(line) > _LONGEST_LINE for line in self.envelope.content.split(b"\r\n")):
            reply = "500 5.5.2 Line too long"
        else:
            reply = await self.answer(Stage.CONTENT, "", content=self.envelope.content)
            if not reply or reply.startswith("2"):
                try:
                    queue_id = self.store_mail()
                    reply = reply or f"250 2.0.0 OK {queue_id}"
                except BadHeader as error:
                    reply = str(error)
        self._set_post_data_state()  # type: ignore[no-untyped-call]
        await self.push(reply)

    async def _read_content(self) -> bytes:
        # With a line break put before it, an empty content ends like any other.
        self._reader._buffer[:0] = b"\r\n"  # type: ignore[attr-defined]
        read = await self._reader.readuntil(b"\r\n.\r\n")
        content = read[: -len(b".\r\n")].replace(b"\r\n.", b"\r\n")
        return content[len(b"\r\n") :]

    def _check_login(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, login: LoginPassword
    ) -> AuthResult:
        user = login.login.decode(errors="replace")
        known = user == USER or (user.startswith(_SUBACCOUNT) and user.removeprefix(_SUBACCOUNT).isdigit())
        if known and login.password == self.rules.password.encode():
            return AuthResult(success=True, message=AUTH_ACCEPTED, auth_data=login)
        return AuthResult(success=False, handled=False, message=AUTH_REFUSED)


class _Hooks:
    """What ``aiosmtpd`` asks for each command; a hook that gives a reply also has to have the command's effect."""

    def __init__(self, session: SparkPostSession) -> None:
        self._session = session

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        encrypted = session.ssl is not None
        offered = ["STARTTLS"] if not encrypted else []
        offered.append("ENHANCEDSTATUSCODES")
        if encrypted:
            offered += ["AUTH LOGIN PLAIN", "AUTH=LOGIN PLAIN"]
        offered += ["8BITMIME", "PIPELINING"]
        default = "\n".join(f"250 {word}" for word in [f"{server.hostname} says EHLO to {hostname}", *offered])
        reply = await self._session.answer(Stage.HELLO, default)
        if reply.startswith("2"):
            session.host_name = hostname
        return [reply]

    async def handle_HELO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str
    ) -> str:
        reply = await self._session.answer(Stage.HELLO, f"250 {server.hostname} says HELO to {hostname}")
        if reply.startswith("2"):
            session.host_name = hostname
        return reply

    async def handle_AUTH(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, args: list[str]
    ) -> Any:
        reply = await self._session.answer(Stage.AUTH, "")
        if reply:
            session.authenticated = reply.startswith("2")
            return reply
        # Done here because the base class goes on to set an attribute that it deprecates itself.
        result: AuthResult = await server._auth_methods[args[0]].method(server, args)
        session.authenticated = result.success
        return result.message

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        self._session.mails += 1
        full = self._session.mails > self._session.rules.messages_per_connection
        reply = await self._session.answer(Stage.MAIL, TOO_MANY_MESSAGES if full else SENDER_ACCEPTED)
        if reply.startswith("2"):
            envelope.mail_from = address
            envelope.mail_options.extend(options)
        return reply

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        reply = await self._session.answer(Stage.RCPT, "", recipient=address)
        reply = reply or self._session.rules.addresses.reply_to(address) or RECIPIENT_ACCEPTED
        if reply.startswith("2"):
            envelope.rcpt_tos.append(address)
        return reply

    async def handle_RSET(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return await self._session.answer(Stage.RESET, "250 2.0.0 OK")

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        return await self._session.answer(Stage.QUIT, f"221 2.0.0 {server.hostname} closing")


def _multiline(lines: list[str]) -> list[str]:
    """The lines of one reply, all but the last with a hyphen behind the code (RFC 5321 §4.2.1)."""
    if len(lines) < 2:
        return lines
    return [f"{line[:3]}-{line[4:]}" for line in lines[:-1]] + [f"{lines[-1][:3]} {lines[-1][4:]}"]
