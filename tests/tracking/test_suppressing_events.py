"""What SparkPost's events put on the suppression list, and for which mail."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings
from django.utils import timezone

from congressy_mailer import send_bulk
from congressy_mailer.models import Suppression
from congressy_mailer.sparkpost.events import parse_events
from congressy_mailer.suppressions.entries import Entry, add, remove
from congressy_mailer.suppressions.lookup import suppressed_among
from congressy_mailer.suppressions.rules import Scope, Source
from congressy_mailer.tracking.recording import track
from tests.support.mails import queue_message
from tests.support.sparkpost_events import event, moment
from tests.support.tracking import ANA, delivery, status, tell

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("published")]


@pytest.mark.parametrize(
    ("type", "fields", "transactional", "other", "source"),
    [
        ("bounce", {"bounce_class": "10"}, True, True, "bounce"),
        ("out_of_band", {"bounce_class": 30}, True, True, "bounce"),
        ("out_of_band", {"bounce_class": 25, "raw_reason": "550 refused"}, False, False, ""),
        ("bounce", {"bounce_class": "25", "raw_reason": "550 refused"}, False, False, ""),
        ("bounce", {"bounce_class": "80"}, False, False, ""),
        ("out_of_band", {"bounce_class": "90"}, False, True, "unsubscribe"),
        ("out_of_band", {"bounce_class": "100"}, False, False, ""),
        ("bounce", {"bounce_class": "20"}, False, False, ""),
        ("bounce", {"bounce_class": "51"}, False, False, ""),
        ("bounce", {}, False, False, ""),
        ("policy_rejection", {"bounce_class": "10"}, False, False, ""),
        ("delay", {"bounce_class": "10"}, False, False, ""),
        ("spam_complaint", {}, False, True, "complaint"),
        ("list_unsubscribe", {}, False, True, "unsubscribe"),
        ("link_unsubscribe", {}, False, True, "unsubscribe"),
    ],
)
def test_what_suppresses_an_address(
    type: str, fields: dict[str, str], transactional: bool, other: bool, source: str
) -> None:
    tell(event(type, queue_message(to=["Ana <Ana@example.com>"]), 7, **{"recipient": "ANA@example.com", **fields}))
    assert bool(suppressed_among([ANA], transactional=True)) == transactional
    assert bool(suppressed_among([ANA], transactional=False)) == other
    assert {(one.source, one.created_at) for one in Suppression.objects.all()} == (
        {(source, moment(7))} if source else set()
    )


@override_settings(CONGRESSY_MAILER={"LISTS": {"novidades": "Novidades"}})
def test_who_unsubscribes_from_a_list_gets_the_others() -> None:
    tell(event("list_unsubscribe", queue_message(transactional=False, list_id="novidades")))
    assert suppressed_among([ANA], transactional=False, list_id="novidades")
    assert not suppressed_among([ANA], transactional=False)


@override_settings(CONGRESSY_MAILER={"LISTS": {"novidades": "Novidades"}})
def test_who_unsubscribes_from_a_list_by_a_mail_of_a_batch_does_too() -> None:
    batch = send_bulk([ANA], subject="Oi", message="Oi", transactional=False, list_id="novidades")
    tell(event("link_unsubscribe", batch.messages.get()))
    assert suppressed_among([ANA], transactional=False, list_id="novidades")
    assert not suppressed_among([ANA], transactional=False)


@override_settings(CONGRESSY_MAILER={"LISTS": {"novidades": "Novidades"}})
def test_who_unsubscribes_from_a_list_by_an_answer_gets_the_others() -> None:
    tell(event("out_of_band", queue_message(transactional=False, list_id="novidades"), bounce_class="90"))
    assert suppressed_among([ANA], transactional=False, list_id="novidades")
    assert not suppressed_among([ANA], transactional=False)


SUPPRESSED_THERE = "554 5.7.1 recipient address was suppressed due to {} policy ({})"
CANCELLED = "554 5.7.1 [internal] Campaign cancelled"


@pytest.mark.parametrize("admin", [None, "all"])
@pytest.mark.parametrize(
    "reason",
    [SUPPRESSED_THERE.format("customer", "Unsubscribe Rule"), SUPPRESSED_THERE.format("SYSTEM", "x"), CANCELLED, ""],
)
def test_that_sparkpost_did_not_try_says_nothing_of_the_address(reason: str, admin: str | None) -> None:
    with override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"admin": admin}}):
        tell(event("list_unsubscribe", queue_message(transactional=False), 1))
        message = queue_message(to=["bia@example.com"])
        for at, recipient in enumerate([ANA, "bia@example.com"], start=2):
            tell(event("bounce", message, at, recipient, bounce_class="25", raw_reason=reason))
    assert not suppressed_among([ANA, "bia@example.com"], transactional=True)
    assert not suppressed_among(["bia@example.com"], transactional=False)
    assert delivery(message) == "rejected"
    assert status(message, "bia@example.com").bounce_class == 25


@override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"admin": "transactional"}})
def test_a_host_may_have_other_policies_suppress() -> None:
    tell(event("bounce", queue_message(), bounce_class="25", raw_reason="550 5.7.1 refused by the administrator"))
    assert [one.scope for one in Suppression.objects.all()] == [Scope.TRANSACTIONAL]


@pytest.mark.parametrize(("own", "subaccount", "suppressed"), [
    (False, "146", False), (False, 0, True), (False, "", True), (True, "146", True),
])  # fmt: skip
def test_mail_of_a_subaccount_suppresses_only_where_it_is_ours(own: bool, subaccount: Any, suppressed: bool) -> None:
    tell(event("bounce", queue_message() if own else None, recipient=ANA, bounce_class="10", subaccount_id=subaccount))
    assert bool(suppressed_among([ANA], transactional=True)) == suppressed


@override_settings(CONGRESSY_MAILER={"SUPPRESSION": {"complaint": "all", "unsubscribe": None, "hard": "transactional"}})
def test_the_rules_are_the_hosts() -> None:
    tell(event("link_unsubscribe", queue_message(transactional=False)))
    assert not Suppression.objects.exists()
    tell(event("bounce", queue_message(), bounce_class="30"))
    assert [one.scope for one in Suppression.objects.all()] == [Scope.TRANSACTIONAL]
    tell(event("spam_complaint", queue_message(to=["bia@example.com"])))
    assert suppressed_among(["bia@example.com"], transactional=True)
    assert suppressed_among(["bia@example.com"], transactional=False)


@pytest.mark.parametrize("listed", [True, False])
def test_what_happened_before_somebody_took_an_address_off_the_list_does_not_bring_it_back(listed: bool) -> None:
    if listed:
        add([Entry(at=moment(0), source=Source.MANUAL, address=ANA, scope=Scope.TRANSACTIONAL)])
    assert remove(ANA) == listed
    tell(event("bounce", queue_message(), 5, bounce_class="10"))
    assert not suppressed_among([ANA], transactional=True)
    later = timezone.now() + timedelta(minutes=1)
    track(parse_events([event("bounce", queue_message(), timestamp=later.isoformat(), bounce_class="10")], later))
    assert suppressed_among([ANA], transactional=True)
