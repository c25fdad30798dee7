"""SparkPost's suppression list as its API reference describes it, for a :class:`.scripted_https.ScriptedHttps`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import unquote, urlencode

from django.utils import timezone

from tests.support.scripted_https import Answer, Request

_PATH = "/api/v1/suppression-list"


@dataclass
class SparkPostList:
    """The list: call it with a request. "Suppression List" of the API reference says what it does with one."""

    #: By address, type and list: what else there is of it.
    entries: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    #: Entries of a page, whatever is asked for.
    per_page: int = 1000
    #: Addresses that it does not take.
    malformed: set[str] = field(default_factory=set)
    #: What it says instead, for once each.
    interruptions: list[Answer | None] = field(default_factory=list)
    #: How many cursors have been given out; those up to here are no longer known.
    expired: int = 0
    _cursors: list[tuple[int, str | None]] = field(default_factory=list)

    def add(
        self, address: str, type: str = "non_transactional", list_id: str = "", *, source: str = "Manually Added",
        description: str = "", updated: datetime | None = None, **more: Any,
    ) -> None:  # fmt: skip
        """Put an entry there, as somebody else than we would."""
        moment = (updated or timezone.now()).isoformat()
        self.entries[address, type, list_id] = {
            "source": source, "description": description, "created": moment, "updated": moment, **more,
        }  # fmt: skip

    def __call__(self, request: Request) -> Answer | None:
        if self.interruptions and (answer := self.interruptions.pop(0)) is not CARRY_ON:
            return answer
        address = unquote(request.path.removeprefix(_PATH).strip("/"))
        if request.method == "PUT":
            return self._put(request.json["recipients"])
        if request.method == "DELETE":
            return self._delete(address, request.json, request.query)
        if address:
            found = [one for one in self._entries_since(None) if one["recipient"] == address]
            return (
                Answer(200, {"results": found, "links": []}) if found else _error(404, "Recipient could not be found")
            )
        return self._page({name: values[0] for name, values in request.query.items()})

    def _put(self, recipients: list[dict[str, str]]) -> Answer:
        assert 0 < len(recipients) <= 10_000
        wrong = [one["recipient"] for one in recipients if one["recipient"] in self.malformed]
        if wrong:
            return _error(400, f"PUT body contains {len(wrong)} invalid or malformed recipient(s): {', '.join(wrong)}")
        for one in recipients:
            self.add(one["recipient"], one["type"], one.get("list_id", ""), description=one["description"])
        return Answer(200, {"results": {"message": "Suppression List successfully updated"}})

    def _delete(self, address: str, what: dict[str, str], query: dict[str, list[str]]) -> Answer:
        """ "Delete a Suppression": the query names the list; empty, the account's own entry; left out, all of them."""
        found = [
            key
            for key in self.entries
            if key[:2] == (address, what["type"]) and ("list_id" not in query or key[2] == query["list_id"][0])
        ]
        if not found:
            return _error(404, "Recipient could not be found")
        if any(self.entries[key]["source"] == "Compliance" for key in found):
            return _error(403, "Recipient could not be removed - Compliance")
        for key in found:
            del self.entries[key]
        return Answer(204, b"")

    def _page(self, parameters: dict[str, str]) -> Answer:
        if parameters["cursor"] == "initial":
            start, since = 0, parameters.get("from")
        else:
            number = int(parameters["cursor"])
            if number < self.expired:
                return _error(400, "Invalid cursor")
            start, since = self._cursors[number]
        found = list(self._entries_since(since))
        links = []
        if start + self.per_page < len(found):
            self._cursors.append((start + self.per_page, since))
            query = urlencode({"cursor": len(self._cursors) - 1, "per_page": self.per_page})
            # Whom it names is not to be asked.
            links.append({"href": f"https://elsewhere.example{_PATH}?{query}", "rel": "next"})
        return Answer(200, {"results": found[start : start + self.per_page], "links": links, "total_count": len(found)})

    def expire_cursors(self) -> None:
        """As after some time."""
        self.expired = len(self._cursors)

    def _entries_since(self, since: str | None) -> Iterator[dict[str, Any]]:
        for (address, type, list_id), more in sorted(self.entries.items()):
            if since is None or datetime.fromisoformat(more["updated"]) >= datetime.fromisoformat(since):
                yield {"recipient": address, "type": type, **({"list_id": list_id} if list_id else {}), **more}


#: No interruption.
CARRY_ON = Answer(299)


def _error(status: int, message: str) -> Answer:
    return Answer(status, {"errors": [{"message": message}]})
