"""The tables of the page on moving in from django-anymail say what its code and ours do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from congressy_mailer.sparkpost.events import TYPES, parse_events
from congressy_mailer.submission import anymail_attributes
from tests.support.pages import ROOT


def table(page: str, heading: str) -> list[list[str]]:
    """The rows of a table of a page, which begins with this heading."""
    text = (ROOT / page).read_text()
    rows = text[text.index(f"| {heading} |") :].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def codes(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", cell))


ANYMAIL = "docs/how-to/from-anymail.md"


@pytest.fixture
def pairs() -> list[tuple[Any, Any]]:
    """Each kind of event as django-anymail has it, and as we have it."""
    return list(_pairs())


def _pairs() -> Iterator[tuple[Any, Any]]:
    from anymail.webhooks.sparkpost import SparkPostTrackingWebhookView

    view = SparkPostTrackingWebhookView()
    for name in sorted({*TYPES, *view.event_types, "something_else"}):
        for bounce_class in view.reject_reasons if name in ("bounce", "out_of_band") else [""]:
            event = {
                "type": name, "timestamp": "1790000000", "rcpt_to": "ana@example.com", "raw_rcpt_to": "ana@example.com",
                "rcpt_meta": {"customer": "Ana"}, "campaign_id": "confirmation", "raw_reason": "550 5.1.1 unknown",
                "target_link_url": "https://www.example.com/" if "click" in name else "",
            }  # fmt: skip
            if bounce_class:
                event["bounce_class"] = bounce_class
            theirs = view.esp_to_anymail_event("event", event, event)
            (ours,) = parse_events([{"msys": {"event": event}}], datetime.now(UTC).replace(year=2027))
            yield theirs, ours.event


@pytest.mark.filterwarnings("ignore:Your Anymail webhooks are insecure")
class TestTheTablesOfAnymail:
    def test_types_of_events(self, pairs: list[tuple[Any, Any]]) -> None:
        stated = {
            (theirs, ours)
            for their_cell, our_cell in table(ANYMAIL, "`tracking`: `event.event_type`")
            for theirs in codes(their_cell)
            for ours in codes(our_cell) - {"initial_open"}
        }
        # It does not know the first opening, which we count as one.
        found = {(theirs.event_type, ours.type) for theirs, ours in pairs if "initial" not in ours.sparkpost_type}
        assert stated == found
        assert {ours.type for _, ours in pairs if ours.sparkpost_type == "initial_open"} == {"opened"}
        assert {ours.bounce_class for _, ours in pairs if ours.type == "not_tried" and ours.bounce_class} == {25}

    def test_reasons_of_bounces(self, pairs: list[tuple[Any, Any]]) -> None:
        stated = {
            (reason.strip("`"), category.strip("`"), int(one))
            for reason, category, classes in table(ANYMAIL, "`event.reject_reason`")
            for one in classes.split(", ")
        }
        assert stated == {
            (theirs.reject_reason, ours.bounce_category, ours.bounce_class)
            for theirs, ours in pairs
            if ours.bounce_class is not None and ours.type != "other"
        }

    def test_attributes_of_events(self, pairs: list[tuple[Any, Any]]) -> None:
        rows = {name: here for there, here in table(ANYMAIL, "Attribute of the event there") for name in codes(there)}
        beside = {"event_type", "reject_reason", "description"}
        assert rows.keys() == vars(pairs[0][0]).keys() - beside
        for theirs, ours in pairs:
            for name, cell in rows.items():
                if name == "tags":
                    assert theirs.tags == [ours.campaign]
                elif name not in ("message_id", "event_id", "user_agent", "esp_event"):
                    (our_name,) = codes(cell)
                    assert (getattr(theirs, name) or "") == getattr(ours, our_name), (name, ours.sparkpost_type)

    def test_attributes_of_mails(self) -> None:
        rows = {name: behind for cell, _, behind in table(ANYMAIL, "Attribute") for name in codes(cell)}
        assert rows.keys() == set(anymail_attributes.ANYMAIL_ATTRIBUTES)
        assert {name for name, behind in rows.items() if name in codes(behind)} == anymail_attributes._MAPPED
