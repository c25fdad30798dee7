"""SparkPost's API for webhooks, which the ``sparkpost`` package does not know (API reference, "Event Webhooks")."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _
from django.views.decorators.debug import sensitive_variables
from sparkpost.base import Resource

from ..conf import mailer_settings
from ..exceptions import SparkPostError
from . import TOKEN_HEADER
from .client import Client, Transport, api_client
from .events import TYPES


class Webhooks(Resource):  # type: ignore[misc]
    """Webhooks of the account, over the transport with timeouts. Every method raises :class:`.SparkPostError`."""

    key = "webhooks"

    def list(self) -> Sequence[Mapping[str, Any]]:
        """All webhooks."""
        found = self.request("GET", self.uri)
        return found if isinstance(found, list) else []

    @sensitive_variables()
    def create(self, name: str, target: str, secret: str) -> Mapping[str, Any]:
        """Have SparkPost post all events of mails.

        Args:
            name: for people.
            target: where to.
            secret: of ``WEBHOOK_SECRETS``; what SparkPost is to show.
        """
        body = {"name": name, "target": target, "events": sorted(TYPES), **_credentials(secret)}
        return self._as_mapping(self.request("POST", self.uri, data=json.dumps(body)))

    @sensitive_variables()
    def update(self, key: str, target: str | None, secret: str) -> Mapping[str, Any]:
        """Have a webhook show another secret, and post to another URL where one is given."""
        body = {**_credentials(secret), **({"target": target} if target else {})}
        return self._as_mapping(self.request("PUT", self._uri_of(key), data=json.dumps(body)))

    def validate(self, key: str) -> Mapping[str, Any]:
        """Have SparkPost post an example now; returns what was answered."""
        body = json.dumps({"message": [{"msys": {}}]})
        return self._as_mapping(self.request("POST", f"{self._uri_of(key)}/validate", data=body))

    def delete(self, key: str) -> None:
        """Have SparkPost forget a webhook."""
        self.request("DELETE", self._uri_of(key))

    def _uri_of(self, key: str) -> str:
        return f"{self.uri}/{quote(key, safe='')}"

    @staticmethod
    def _as_mapping(answer: Any) -> Mapping[str, Any]:
        return answer if isinstance(answer, dict) else {}


@sensitive_variables()
def webhooks() -> Webhooks:
    """The API with the host's key.

    Raises:
        SparkPostError: there is no ``SPARKPOST_API_KEY``.
    """
    client: Client = api_client()
    return Webhooks(client.base_uri, client.api_key, Transport)


@sensitive_variables()
def current_secret() -> str:
    """The credentials that SparkPost is to use: the first of ``WEBHOOK_SECRETS``.

    Raises:
        SparkPostError: there is none.
    """
    secrets = mailer_settings().WEBHOOK_SECRETS
    if not secrets:
        raise SparkPostError(
            _('CONGRESSY_MAILER["WEBHOOK_SECRETS"] is not set: the webhook would refuse whatever SparkPost posts.')
        )
    return secrets[0]


def own_target() -> str:
    """Where our webhook is.

    Raises:
        SparkPostError: ``SITE_URL`` or our URLs are missing.
    """
    site = mailer_settings().SITE_URL
    try:
        path = reverse("congressy_mailer:sparkpost-events")
    except NoReverseMatch:
        path = None
    if site is None or path is None:
        raise SparkPostError(
            _(
                'Give the URL, or set CONGRESSY_MAILER["SITE_URL"] and add path("mailer/", '
                'include("congressy_mailer.urls")) to the URLs.'
            )
        )
    return site.rstrip("/") + path


def check_target(target: str) -> None:
    """SparkPost posts to the ports 80 and 443 alone, and what it shows there is a secret.

    Raises:
        SparkPostError: it is no such URL.
    """
    try:
        parts = urlsplit(target)
        right = parts.scheme == "https" and bool(parts.hostname) and parts.port in (None, 443)
    except ValueError:
        right = False
    if not right:
        raise SparkPostError(
            _(
                "%(target)r is not an https URL on port 443: SparkPost would not post to it, or others could read the "
                "events."
            )
            % {"target": target}
        )


@sensitive_variables()
def _credentials(secret: str) -> dict[str, Any]:
    kind, _, value = secret.partition(" ")
    if kind == "basic":
        user, _, password = value.partition(":")
        return {"auth_type": "basic", "auth_credentials": {"username": user, "password": password}}
    headers = {TOKEN_HEADER: value} if kind == "token" else {"Authorization": f"Bearer {value}"}
    return {"auth_type": "none", "custom_headers": headers}
