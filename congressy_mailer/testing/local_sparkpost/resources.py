"""The resources of the HTTP API: which path leads where, and which permission it needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote, urlencode

import requests

from .account import Account
from .answers import Answer, ApiError, Request
from .mailbox import Mailbox
from .msys_header import address_of
from .suppression_list import MAX_ENTRIES, TYPES, ListError, Search, types_of
from .transmissions import MAX_CONTENT_BYTES, send
from .webhooks import WebhookError

#: The DKIM selector that it reports; nothing is signed here.
_DKIM_KEY = "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQ"
_LIST_UPDATED = Answer(200, {"results": {"message": "Suppression List successfully updated"}})


class Resources:
    """Everything under ``/api/v1``."""

    def __init__(self, account: Account, mailbox: Mailbox, new_queue_id: Callable[[], str]) -> None:
        self._account = account
        self._mailbox = mailbox
        self._new_queue_id = new_queue_id
        # Method, path, permission, what answers; groups of the path are its arguments.
        routes: list[tuple[str, str, str, Callable[..., Answer]]] = [
            ("POST", "/transmissions/?", "transmissions/modify", self._send),
            ("DELETE", "/transmissions/?", "transmissions/modify", self._cancel),
            ("PUT", "/suppression-list/?", "suppression_lists/manage", self._put_many),
            ("GET", "/suppression-list/?", "suppression_lists/manage", self._search),
            ("PUT", "/suppression-list/([^/]+)", "suppression_lists/manage", self._put_one),
            ("GET", "/suppression-list/([^/]+)", "suppression_lists/manage", self._get_one),
            ("DELETE", "/suppression-list/([^/]+)", "suppression_lists/manage", self._delete_one),
            ("POST", "/webhooks/?", "webhooks/modify", self._create_webhook),
            ("GET", "/webhooks/?", "webhooks/modify", self._list_webhooks),
            ("GET", "/webhooks/([^/]+)", "webhooks/modify", self._get_webhook),
            ("PUT", "/webhooks/([^/]+)", "webhooks/modify", self._update_webhook),
            ("DELETE", "/webhooks/([^/]+)", "webhooks/modify", self._delete_webhook),
            ("POST", "/webhooks/([^/]+)/validate", "webhooks/modify", self._validate_webhook),
            ("GET", "/sending-domains/?", "sending_domains/manage", self._list_domains),
            ("GET", "/sending-domains/([^/]+)", "sending_domains/manage", self._get_domain),
        ]
        self._routes = [(method, re.compile(path), permission, answer) for method, path, permission, answer in routes]

    def answer(self, request: Request) -> Answer:
        """The answer to a request."""
        try:
            return self._route(request)
        except ApiError as error:
            return error.answer

    def _route(self, request: Request) -> Answer:
        if request.headers.get("Authorization") != self._account.key:
            raise ApiError(401, "Unauthorized.")
        known = False
        for method, path, permission, answer in self._routes:
            match = path.fullmatch(request.path)
            if match is None:
                continue
            known = True
            if method == request.method:
                if permission not in self._account.permissions:
                    raise ApiError(403, "Forbidden.")
                return answer(request, *map(unquote, match.groups()))
        raise ApiError(405, "invalid HTTP method", "1102") if known else ApiError(404, "invalid URI", "1101")

    def _send(self, request: Request) -> Answer:
        if len(request.body) > MAX_CONTENT_BYTES:
            raise ApiError(413, "Request Entity Too Large")
        return send(self._account, self._mailbox, self._new_queue_id, request.json())

    def _cancel(self, request: Request) -> Answer:
        campaign = request.query.get("campaign_id")
        if not campaign:
            raise ApiError(400, "required field is missing", "1400", "campaign_id is required")
        self._account.cancel_campaign(campaign)
        return Answer(204)

    # --- the suppression list ---

    def _put_many(self, request: Request) -> Answer:
        try:
            self._account.suppression_list.put(_json_object(request).get("recipients"))
        except ListError as error:
            raise ApiError(400, str(error)) from None
        return _LIST_UPDATED

    def _put_one(self, request: Request, recipient: str) -> Answer:
        try:
            self._account.suppression_list.put([{**_json_object(request), "recipient": recipient}])
        except ListError as error:
            raise ApiError(400, str(error)) from None
        return _LIST_UPDATED

    def _get_one(self, request: Request, recipient: str) -> Answer:
        types = _comma_separated(request, "types") or TYPES
        found = [
            entry.as_json() for entry in self._account.suppression_list.entries_of(recipient) if entry.type in types
        ]
        if not found:
            raise ApiError(404, "Recipient could not be found")
        return Answer(200, {"results": found, "links": [], "total_count": len(found)})

    def _delete_one(self, request: Request, recipient: str) -> Answer:
        """The list is named in the query: empty for the account's own entry, left out for the entries of all lists (API
        reference, "Delete a Suppression")."""
        value = _json_object(request) if request.body else {}
        try:
            types = types_of(value) if "type" in value else TYPES
            self._account.suppression_list.remove(recipient, types, request.query.get("list_id"))
        except KeyError:
            raise ApiError(404, "Recipient could not be found") from None
        except ListError as error:
            raise ApiError(403 if address_of(recipient) else 400, str(error)) from None
        return Answer(204)

    def _search(self, request: Request) -> Answer:
        search = Search(
            since=_time(request, "from"),
            until=_time(request, "to"),
            domain=request.query.get("domain", ""),
            types=_comma_separated(request, "types"),
            sources=_comma_separated(request, "sources"),
            description=request.query.get("description", ""),
        )
        size = _number(request, "per_page", _number(request, "limit", 1000))
        try:
            entries, cursor, count = self._account.suppression_list.page(
                search, after=request.query.get("cursor", "initial"), size=size
            )
        except ListError as error:
            raise ApiError(400, str(error)) from None
        links = [{"rel": "next", "href": _page_link(request, cursor)}] if cursor else []
        return Answer(
            200,
            {
                "results": [entry.as_json() for entry in entries],
                "links": [{"rel": "first", "href": _page_link(request, "initial")}, *links],
                "total_count": count,
            },
        )

    # --- webhooks ---

    def _create_webhook(self, request: Request) -> Answer:
        try:
            webhook = self._account.webhooks.create(_json_object(request))
        except WebhookError as error:
            raise ApiError(400, str(error)) from None
        return Answer(200, {"results": {"id": webhook.id, "links": webhook.as_json()["links"]}})

    def _list_webhooks(self, request: Request) -> Answer:
        return Answer(200, {"results": [webhook.as_json() for webhook in self._account.webhooks]})

    def _get_webhook(self, request: Request, id_: str) -> Answer:
        try:
            return Answer(200, {"results": self._account.webhooks.get(id_).as_json()})
        except KeyError:
            raise _no_webhook(id_) from None

    def _update_webhook(self, request: Request, id_: str) -> Answer:
        try:
            webhook = self._account.webhooks.update(id_, _json_object(request))
        except KeyError:
            raise _no_webhook(id_) from None
        except WebhookError as error:
            raise ApiError(400, str(error)) from None
        return Answer(200, {"results": {"id": webhook.id, "links": webhook.as_json()["links"]}})

    def _delete_webhook(self, request: Request, id_: str) -> Answer:
        try:
            self._account.webhooks.delete(id_)
        except KeyError:
            raise _no_webhook(id_) from None
        return Answer(204)

    def _validate_webhook(self, request: Request, id_: str) -> Answer:
        value = _json_object(request).get("message", {"msys": {}})
        try:
            webhook = self._account.webhooks.get(id_)
            answer = self._account.webhooks.post(webhook, [value], batch=self._account.new_id())
        except KeyError:
            raise _no_webhook(id_) from None
        except requests.RequestException as error:
            raise ApiError(400, f"Test POST to endpoint failed: {type(error).__name__}") from None
        if answer.status_code != 200:
            raise ApiError(400, f"Test POST to endpoint failed: it answered {answer.status_code}")
        response = {"status": answer.status_code, "headers": dict(answer.headers), "body": answer.text[:1000]}
        return Answer(200, {"results": {"msg": "Test POST to endpoint succeeded", "response": response}})

    # --- sending domains ---

    def _list_domains(self, request: Request) -> Answer:
        domains = sorted(self._account.sending_domains or ())
        return Answer(200, {"results": [self._domain(domain) for domain in domains]})

    def _get_domain(self, request: Request, domain: str) -> Answer:
        known = self._account.sending_domains
        if known is not None and domain not in known:
            raise ApiError(404, "resource not found", "1600", "Resource could not be found")
        return Answer(200, {"results": self._domain(domain)})

    def _domain(self, domain: str) -> dict[str, Any]:
        """As the API writes it (API reference, "Sending Domains")."""
        status = {
            "ownership_verified": True, "dkim_status": "valid", "spf_status": "unverified",
            "compliance_status": "valid", **self._account.domain_status.get(domain, {}),
        }  # fmt: skip
        dkim = {"headers": "from:to:subject:date", "public": _DKIM_KEY, "selector": "scph0526"}
        return {"domain": domain, "status": status, "dkim": dkim, "shared_with_subaccounts": False}


def _json_object(request: Request) -> dict[str, Any]:
    value = request.json()
    if not isinstance(value, dict):
        raise ApiError(400, "invalid params", "1200", "the body must be an object")
    return value


def _comma_separated(request: Request, name: str) -> list[str]:
    return [word for word in request.query.get(name, "").split(",") if word]


def _number(request: Request, name: str, default: int) -> int:
    value = request.query.get(name, str(default))
    if not (value.isascii() and value.isdigit() and 1 <= int(value) <= MAX_ENTRIES):
        raise ApiError(400, f"{name} must be a number between 1 and {MAX_ENTRIES}")
    return int(value)


def _time(request: Request, name: str) -> datetime | None:
    value = request.query.get(name)
    if value is None:
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        raise ApiError(400, f"{name} must be a valid date") from None
    if found.tzinfo is None:
        raise ApiError(400, f"{name} must be a valid date")
    return found


def _page_link(request: Request, cursor: str) -> str:
    return f"/api/v1/suppression-list?{urlencode({**request.query, 'cursor': cursor}, quote_via=quote)}"


def _no_webhook(id_: str) -> ApiError:
    return ApiError(404, "resource not found", "1600", f"There is no webhook {id_}")
