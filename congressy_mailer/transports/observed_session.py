"""What is said over a connection of ``smtplib``, which Django's backend drops and ``smtplib`` in part mistakes."""

from __future__ import annotations

import smtplib
from typing import Any, BinaryIO

from ..replies import Reply, Stage
from .base import Answer
from .smtp.errors import error_reply, reply_of
from .smtp.reply_parser import LONGEST_REPLY, InvalidReply, ReplyParser

#: Of a backend that reports success, and tells no more.
SENT = Reply(250, "accepted by the mail backend")

#: Of a backend that reports that nothing was sent, and not why.
NOT_SENT = Reply(None, "The mail backend reports that it sent nothing.")


class ObservedSession:
    """Listens to an ``smtplib`` connection for what Django's backend drops, and for what ``smtplib`` mistakes."""

    def __init__(self, connection: smtplib.SMTP) -> None:
        self.connection = connection
        self._mail = connection.mail
        self._rcpt = connection.rcpt
        self._data = connection.data
        connection.mail = self.mail  # type: ignore[method-assign]
        connection.rcpt = self.rcpt  # type: ignore[method-assign]
        connection.data = self.data  # type: ignore[method-assign, assignment]
        connection.getreply = self.getreply  # type: ignore[method-assign]
        self.begin()

    def begin(self) -> None:
        """Forget the mail before."""
        self._recipients: dict[str, Reply] = {}
        # The last reply about this mail; RSET and its like are not about it.
        self._last_reply: tuple[Stage, Reply] | None = None
        # The last byte of the content is on its way.
        self._content_sent = False
        # Replies read since DATA: the first is to the command, the second to the content.
        self._replies_since_data: int | None = None
        self._used = False

    @property
    def unused(self) -> bool:
        """The backend has said nothing of this mail on it."""
        return not self._used

    def answer(self, sent: bool, error: Exception | None) -> Answer:
        """What was said of this mail.

        Args:
            sent: the backend reports that it is sent.
            error: what the backend raised.
        """
        stage, reply = self._last_reply or (Stage.MAIL, NOT_SENT)
        if self._content_sent and stage is Stage.CONTENT and reply.code is not None and reply.code // 100 != 3:
            return Answer(reply, stage, self._recipients)
        if sent:
            # Over another connection than this one.
            return Answer(SENT, Stage.CONTENT, self._recipients)
        if error is None:
            # A backend that fails silently: a refusal tells why, any other reply does not.
            reply = reply if reply.code is not None and reply.code >= 400 else NOT_SENT
        elif not isinstance(error, smtplib.SMTPResponseException | smtplib.SMTPRecipientsRefused):
            # It is not a reply that ended it.
            reply = error_reply(error)
        return Answer(reply, stage, self._recipients, in_doubt=self._content_sent)

    def mail(self, *args: Any, **options: Any) -> tuple[int, bytes]:
        self._used = True
        code, text = self._mail(*args, **options)
        self._last_reply = Stage.MAIL, reply_of(code, text)
        return code, text

    def rcpt(self, recip: str, *args: Any, **options: Any) -> tuple[int, bytes]:
        code, text = self._rcpt(recip, *args, **options)
        self._recipients[recip] = reply_of(code, text)
        self._last_reply = Stage.RCPT, self._recipients[recip]
        return code, text

    def data(self, message: Any) -> tuple[int, bytes]:
        self._replies_since_data = 0
        try:
            code, text = self._data(message)
        except smtplib.SMTPDataError as error:
            self._last_reply = Stage.DATA, reply_of(error.smtp_code, error.smtp_error)
            raise
        finally:
            self._replies_since_data = None
        self._last_reply = Stage.CONTENT, reply_of(code, text)
        return code, text

    def getreply(self) -> tuple[int, bytes]:
        """As ``smtplib`` has it, but only a whole reply is one.

        ``smtplib`` takes ``250`` without an end of line for a reply, the last of several lines whose codes differ,
        and ``2505`` for 250; where a line is too long it makes up a permanent refusal.
        """
        if self._replies_since_data is not None:
            self._replies_since_data += 1
            self._content_sent = self._replies_since_data == 2
        connection = self.connection
        try:
            if connection.file is None:
                connection.file = connection.sock.makefile("rb")  # type: ignore[union-attr]
            return _read_reply(connection.file)
        except OSError as error:
            connection.close()
            if isinstance(error, smtplib.SMTPServerDisconnected):
                raise
            raise smtplib.SMTPServerDisconnected(f"Connection unexpectedly closed: {error}") from error


def _read_reply(file: BinaryIO) -> tuple[int, bytes]:
    """Code and text of one reply, as ``smtplib`` wants them.

    Raises:
        smtplib.SMTPServerDisconnected: the bytes are no complete reply; the exchange is over.
    """
    parser = ReplyParser()
    try:
        while (lines := parser.next_lines()) is None:
            line = file.readline(LONGEST_REPLY)
            if not line:
                raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
            parser.feed(line)
    except InvalidReply as error:
        raise smtplib.SMTPServerDisconnected(str(error)) from error
    return int(lines[0][:3]), b"\n".join(line[4:].strip() for line in lines)
