"""A mail backend over SparkPost's HTTP API: for ``using=``, for ``FAILOVER``, or as any mail backend of Django's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.views.decorators.debug import sensitive_variables

from ..conf import mailer_settings
from ..exceptions import InvalidAddress, InvalidHeader, SparkPostError
from ..mime.addresses import bare_address, normalise_addresses
from ..mime.outgoing import as_bytes
from .client import ApiKey, Client, api_client
from .transmissions import TransmissionMail, encode_request, to_addresses, transmission


class EmailBackend(BaseEmailBackend):
    """Sends over SparkPost's Transmissions API.

    A worker looks after outcomes, retrying and shared calls by itself; what is sent here directly raises what SparkPost
    refuses.

    Args:
        fail_silently: say nothing of what could not be sent, and count it out.
        api_key: with the right to send; ``None``: ``SPARKPOST_API_KEY``.
        host: of the API, with its port where it is not 443; ``None``: ``SPARKPOST_API_HOST``.
        options: those of Django's base class.
    """

    @sensitive_variables("api_key")
    def __init__(
        self, fail_silently: bool = False, *, api_key: str | None = None, host: str | None = None, **options: Any
    ) -> None:
        # Django 6.1 knows it no longer, and leaves it to each backend.
        super().__init__(**options)
        self.fail_silently = fail_silently
        self._key = ApiKey(api_key) if api_key else None
        self._host = host

    @property
    def host(self) -> str:
        """Host of the API, with its port where it is not 443."""
        return self._host or mailer_settings().SPARKPOST_API_HOST

    def client(self) -> Client:
        """The client that its mail goes over.

        Raises:
            SparkPostError: there is no key.
        """
        return api_client(self._key, self._host)

    def send_messages(self, email_messages: Sequence[EmailMessage]) -> int:
        """Send these mails, a call for each.

        Returns:
            How many mails SparkPost has accepted for at least one recipient.

        Raises:
            InvalidAddress: a recipient is not an address; the mails before it are sent.
            InvalidHeader: Django would write header fields that the mail was not given; likewise.
            SparkPostError: it refuses one, or cannot be asked; the mails before it are sent.
        """
        sent = 0
        for mail in email_messages:
            try:
                sent += self._send(mail)
            except (InvalidAddress, InvalidHeader, SparkPostError):
                if not self.fail_silently:
                    raise
        return sent

    def _send(self, mail: EmailMessage) -> bool:
        recipients = list(map(bare_address, normalise_addresses(mail.recipients(), "recipients")))
        if not recipients:
            return False
        request = transmission(TransmissionMail(as_bytes(mail), list(dict.fromkeys(recipients)), to_addresses(mail.to)))
        transmissions = self.client().transmissions
        results = transmissions.request("POST", transmissions.uri, data=encode_request(request))
        refused = isinstance(results, dict) and results.get("total_accepted_recipients") == 0
        if refused:
            raise SparkPostError("SparkPost has taken the mail for none of its recipients.", status=200)
        return True
