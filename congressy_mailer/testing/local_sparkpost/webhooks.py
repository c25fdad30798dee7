"""Webhooks that are registered (API reference, "Webhooks"), and one POST to one of them."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests

from .events import CLASSES

#: SparkPost waits so long for an answer.
_TIMEOUT = 10.0
_AUTH_TYPES = ("none", "basic", "oauth2")
_CHANGEABLE = ("name", "target", "events", "active", "auth_type", "auth_credentials", "auth_request_details",
               "auth_token", "custom_headers")  # fmt: skip


class WebhookError(ValueError):
    """SparkPost does not take it; the text says why."""


@dataclass
class Webhook:
    """One of them."""

    id: str
    name: str
    target: str
    events: list[str]
    active: bool = True
    auth_type: str = "none"
    auth_credentials: dict[str, str] = field(default_factory=dict, repr=False)
    auth_request_details: dict[str, Any] = field(default_factory=dict, repr=False)
    #: The old way: sent in ``X-MessageSystems-Webhook-Token``.
    auth_token: str = field(default="", repr=False)
    custom_headers: dict[str, str] = field(default_factory=dict, repr=False)

    def as_json(self) -> dict[str, Any]:
        """As the API writes it."""
        here = f"/api/v1/webhooks/{self.id}"
        return {
            "id": self.id,
            **{name: getattr(self, name) for name in _CHANGEABLE},
            "links": [
                {"href": here, "rel": "urn.msys.webhooks.webhook", "method": ["GET", "PUT"]},
                {"href": f"{here}/validate", "rel": "urn.msys.webhooks.validate", "method": ["POST"]},
            ],
        }


class Webhooks:
    """All that are registered. Safe to use from several threads."""

    def __init__(self, trusted: Path) -> None:
        """None yet.

        Args:
            trusted: PEM file of the authority whose certificates a target on HTTPS may have.
        """
        self._trusted = trusted
        self._webhooks: dict[str, Webhook] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Webhook]:
        with self._lock:
            return iter(list(self._webhooks.values()))

    def get(self, id_: str) -> Webhook:
        """One of them; ``KeyError`` where there is none."""
        with self._lock:
            return self._webhooks[id_]

    def create(self, fields: Mapping[str, Any]) -> Webhook:
        """Register one, once its target has answered a test.

        Raises:
            WebhookError: something is wrong with it, or its target does not answer 200.
        """
        webhook = _updated_webhook(Webhook(str(uuid.uuid4()), "", "", []), fields)
        self._test(webhook)
        with self._lock:
            self._webhooks[webhook.id] = webhook
        return webhook

    def update(self, id_: str, fields: Mapping[str, Any]) -> Webhook:
        """Change one; a new target is tested first. Raises what :meth:`get` and :meth:`create` raise."""
        known = self.get(id_)
        webhook = _updated_webhook(known, fields)
        if webhook.target != known.target:
            self._test(webhook)
        with self._lock:
            self._webhooks[id_] = webhook
        return webhook

    def delete(self, id_: str) -> None:
        """Forget one; ``KeyError`` where there is none."""
        with self._lock:
            del self._webhooks[id_]

    def _test(self, webhook: Webhook) -> None:
        try:
            status = self.post(webhook, [{"msys": {}}], batch=uuid.uuid4().hex).status_code
        except requests.RequestException as error:
            raise WebhookError(f"POST to webhook target failed: {type(error).__name__}") from None
        if status != 200:
            raise WebhookError(f"POST to webhook target failed: it answered {status}")

    def post(self, webhook: Webhook, events: Any, *, batch: str) -> requests.Response:
        """Post a batch, with the credentials that the target wants.

        Unlike SparkPost's, the target may have any port.

        Raises:
            requests.RequestException: it did not answer in time.
        """
        answer = self._post(webhook, events, batch)
        if webhook.auth_type == "oauth2" and answer.status_code in (400, 401):
            # Then a new token is fetched.
            webhook.auth_credentials = {}
            answer = self._post(webhook, events, batch)
        return answer

    def _post(self, webhook: Webhook, events: Any, batch: str) -> requests.Response:
        headers = {"Content-Type": "application/json", **webhook.custom_headers, "X-MessageSystems-Batch-ID": batch}
        if webhook.auth_token:
            headers["X-MessageSystems-Webhook-Token"] = webhook.auth_token
        with requests.Session() as session:
            # Neither a proxy nor a .netrc of this machine: the target is on it.
            session.trust_env = False
            session.verify = str(self._trusted)
            if webhook.auth_type == "oauth2":
                headers["Authorization"] = f"Bearer {self._token(session, webhook)}"
            credentials = webhook.auth_credentials
            basic = (credentials["username"], credentials.get("password", "")) if webhook.auth_type == "basic" else None
            return session.post(
                webhook.target, data=json.dumps(events), headers=headers, auth=basic, timeout=_TIMEOUT,
                allow_redirects=False,
            )  # fmt: skip

    def _token(self, session: requests.Session, webhook: Webhook) -> str:
        if "access_token" not in webhook.auth_credentials:
            details = webhook.auth_request_details
            answer = session.post(details["url"], json=details.get("body", {}), timeout=_TIMEOUT)
            answer.raise_for_status()
            webhook.auth_credentials = {"access_token": str(answer.json()["access_token"])}
        return webhook.auth_credentials["access_token"]


def _updated_webhook(known: Webhook, fields: Mapping[str, Any]) -> Webhook:
    values = {name: fields.get(name, getattr(known, name)) for name in _CHANGEABLE}
    kinds = {"name": str, "target": str, "events": list, "active": bool, "auth_type": str, "auth_token": str}
    for name, value in values.items():
        kind = kinds.get(name, dict)
        if not isinstance(value, kind):
            raise WebhookError(f"{name} must be a {kind.__name__}")
    for name in ("name", "target", "events"):
        if not values[name]:
            raise WebhookError(f"{name} is required")
    target = urlsplit(values["target"])
    if target.scheme not in ("http", "https") or not target.hostname:
        raise WebhookError("target must be a valid URL")
    unknown = [event for event in values["events"] if event not in CLASSES]
    if unknown:
        raise WebhookError(f"events has an unknown type: {unknown[0]}")
    if values["auth_type"] not in _AUTH_TYPES:
        raise WebhookError(f"auth_type must be one of: {', '.join(_AUTH_TYPES)}")
    if values["auth_type"] == "basic" and not values["auth_credentials"].get("username"):
        raise WebhookError("auth_credentials.username is required for basic authentication")
    if values["auth_type"] == "oauth2" and not values["auth_request_details"].get("url"):
        raise WebhookError("auth_request_details.url is required for oauth2 authentication")
    return Webhook(id=known.id, **values)
