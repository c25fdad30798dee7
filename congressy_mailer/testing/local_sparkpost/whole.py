"""A whole SparkPost: its SMTP relay, its HTTP API, and the events that it posts, of one account."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path

from .account import Account
from .api import Api
from .certificate import Certificate, make_certificate
from .mailbox import Mailbox
from .posting import Poster, PostingOptions
from .resources import Resources
from .rules import AccountRules
from .server import LocalSparkPost
from .startable import Startable
from .webhooks import Webhooks


class WholeSparkPost(Startable):
    """All of it, as a context manager. What becomes of a mail is decided by its recipient: see :mod:`.fates`."""

    def __init__(
        self,
        *,
        smtp_port: int = 0,
        api_port: int = 0,
        key: str | None = None,
        directory: Path | None = None,
        certificate: Certificate | None = None,
        idle_seconds: float = 60,
        posting: PostingOptions | None = None,
        rules: AccountRules | None = None,
    ) -> None:
        """Prepare it without starting it.

        Args:
            smtp_port: TCP port; 0 for any that is free.
            api_port: the same for the HTTP API.
            key: the API key, and the password of SMTP; made up if ``None``.
            directory: where accepted mail is stored, too; see :class:`.mailbox.Mailbox`.
            certificate: made for this server if ``None``.
            idle_seconds: of an SMTP connection.
            posting: how events are posted.
            rules: of the account, where SparkPost's pages contradict each other.
        """
        posting = posting or PostingOptions()
        self._own_files: Path | None = None
        if certificate is None:
            self._own_files = Path(tempfile.mkdtemp(prefix="local-sparkpost-"))
            certificate = make_certificate(self._own_files)
        self.certificate = certificate
        webhooks = Webhooks(certificate.authority)
        self.poster = Poster(webhooks, posting)
        self.account = Account(key or secrets.token_hex(16), webhooks, self.poster, seed=posting.seed)
        self.account.rules = rules or AccountRules()
        self.smtp = LocalSparkPost(
            port=smtp_port,
            password=self.account.key,
            directory=directory,
            certificate=certificate,
            idle_seconds=idle_seconds,
            account=self.account,
        )
        self.api = Api(Resources(self.account, self.mailbox, self.smtp.new_queue_id), certificate, port=api_port)

    @property
    def mailbox(self) -> Mailbox:
        """Everything that was taken, by SMTP or HTTP."""
        return self.smtp.mailbox

    def environment(self) -> dict[str, str]:
        """What a client process needs in its environment to accept the certificate with all verification on: the
        first for Python's ``ssl``, which SMTP uses, the second for ``requests``, which the API's client uses."""
        return {**self.smtp.environment(), "REQUESTS_CA_BUNDLE": str(self.certificate.authority)}

    def start(self) -> None:
        """Listen and post."""
        self.smtp.start()
        self.api.start()
        self.poster.start()

    def close(self) -> None:
        """Stop, and remove the certificate if it was made for this server."""
        self.api.stop()
        self.smtp.close()
        self.poster.stop()
        if self._own_files is not None:
            shutil.rmtree(self._own_files, ignore_errors=True)
