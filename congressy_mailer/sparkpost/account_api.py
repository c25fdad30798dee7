"""What SparkPost's API tells of the account, which the ``sparkpost`` package does not ask: what its key may do, and its
sending domains (API reference, "Sending Domains")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from django.views.decorators.debug import sensitive_variables
from sparkpost.base import Resource

from .client import Client, Transport, api_client


class Account(Resource):  # type: ignore[misc]
    """Questions to the API, over the transport with timeouts. Every one raises ``SparkPostError``."""

    key = ""

    def questions(self) -> Mapping[str, Callable[[], Any]]:
        """What the mailer asks for, by the permission that it takes, in the words of SparkPost's app."""
        return {
            "Suppression Lists: Read/Write": lambda: self._get("suppression-list?per_page=1"),
            "Event Webhooks: Read-only": lambda: self._get("webhooks"),
            "Sending Domains: Read-only": lambda: self._get("sending-domains"),
        }

    def sending_domain(self, domain: str) -> Mapping[str, Any]:
        """What SparkPost knows of a sending domain."""
        found = self._get(f"sending-domains/{quote(domain, safe='')}")
        return found if isinstance(found, dict) else {}

    def _get(self, path: str) -> Any:
        return self.request("GET", f"{self.base_uri}/{path}")


@sensitive_variables()
def account() -> Account:
    """The API with the host's key.

    Raises:
        SparkPostError: there is no ``SPARKPOST_API_KEY``.
    """
    client: Client = api_client()
    return Account(client.base_uri, client.api_key, Transport)


def sending_domain(domain: str) -> Mapping[str, Any]:
    """What SparkPost knows of a sending domain.

    Raises:
        SparkPostError: with status 404 where it is unknown.
    """
    return account().sending_domain(domain)
