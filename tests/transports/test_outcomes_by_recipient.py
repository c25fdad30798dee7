"""What becomes of a mail with several recipients, of whom a server says different things."""

from __future__ import annotations

import re

import pytest
from django.test import override_settings

from congressy_mailer.exceptions import TransportUnavailable
from congressy_mailer.replies import Outcome, Reply
from congressy_mailer.testing.local_sparkpost.replies import HANG_UP, KEEP_AND_HANG_UP, SILENCE, Raw
from congressy_mailer.testing.local_sparkpost.server import LocalSparkPost
from tests.support.server_answers import (
    ACCOUNT,
    ANA,
    EVA,
    RUI,
    TIMEOUT,
    UNCONFIGURED,
    ZOE,
    Answer,
    Slice,
    of_recipients,
)
from tests.support.transports import hand_over_by_django, outgoing

pytestmark = pytest.mark.email_settings


def test_each_recipient_has_its_own_answer(server: LocalSparkPost) -> None:
    server.script = of_recipients(server, eva="451 4.7.1 later", rui="550 5.1.1 nobody")
    outcome, following = Slice(outgoing(ANA, EVA, RUI), outgoing(ZOE)).deliver()
    assert outcome.accepted == (ANA,)
    assert outcome.deferred == {EVA: Reply(451, "4.7.1 later")}
    assert outcome.rejected == {RUI: Reply(550, "5.1.1 nobody")}
    assert outcome.reply.code == 250
    assert following.accepted == (ZOE,)
    assert [one.recipients for one in server.mailbox] == [(ANA,), (ZOE,)]


def test_a_recipient_taken_with_an_unusual_code_has_the_mail(server: LocalSparkPost) -> None:
    """The server took it (RFC 5321 §3.5.3), though ``smtplib`` counts it among the refused."""
    server.script = of_recipients(server, eva="252 2.1.5 cannot verify, will try")
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA))
    assert outcome.accepted == (ANA, EVA)
    assert [one.recipients for one in server.mailbox] == [(ANA, EVA)]


@pytest.mark.parametrize("said", [*ACCOUNT, UNCONFIGURED])
def test_a_fault_of_the_configuration_at_one_recipient_leaves_the_others_their_mail(
    server: LocalSparkPost, said: str
) -> None:
    server.script = of_recipients(server, eva=said)
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA))
    assert outcome.accepted == (ANA,)
    assert outcome.deferred == {EVA: Reply(int(said[:3]), said[4:])}
    assert not outcome.sender_refused


@pytest.mark.parametrize(
    ("answers", "deferred", "rejected"),
    [
        ({"ana": "550 5.1.1 nobody", "eva": "550 5.1.1 nobody"}, {}, {ANA: 550, EVA: 550}),
        ({"ana": "451 4.7.1 later", "eva": "450 4.2.1 busy"}, {ANA: 451, EVA: 450}, {}),
        ({"ana": "550 5.1.1 nobody", "eva": "451 4.7.1 later"}, {EVA: 451}, {ANA: 550}),
        ({"ana": "550 5.1.1 nobody", "eva": "252 2.1.5 perhaps"}, {EVA: 252}, {ANA: 550}),
        ({"ana": "354 what", "eva": "552 5.5.3 too many"}, {ANA: 354, EVA: 552}, {}),
    ],
    ids=str,
)
def test_all_recipients_refused(
    server: LocalSparkPost, answers: dict[str, str], deferred: dict[str, int], rejected: dict[str, int]
) -> None:
    server.script = of_recipients(server, **answers)
    outcome, following = Slice(outgoing(ANA, EVA), outgoing(ZOE)).deliver()
    assert outcome.accepted == ()
    assert {name: reply.code for name, reply in outcome.deferred.items()} == deferred
    assert {name: reply.code for name, reply in outcome.rejected.items()} == rejected
    assert following.accepted == (ZOE,)
    assert [one.recipients for one in server.mailbox] == [(ZOE,)]


def test_the_accounts_fault_outweighs_the_senders_and_the_recipients(server: LocalSparkPost) -> None:
    server.script = of_recipients(server, ana="550 5.1.1 nobody", eva=UNCONFIGURED, rui="530 5.7.0 log in first")
    part = Slice(outgoing(ANA, EVA, RUI), outgoing(ZOE))
    with pytest.raises(TransportUnavailable, match="530 5.7.0 log in first"):
        part.deliver()
    assert part.pulled == 1
    server.script = of_recipients(server, ana="550 5.1.1 nobody", eva=UNCONFIGURED)
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA))
    assert outcome == Outcome(outcome.key, reply=Reply(550, UNCONFIGURED[4:]), sender_refused=True)
    assert len(server.mailbox) == 0


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("421 4.3.2 closing", "421 4.3.2 closing"),
        (HANG_UP, "SMTPServerDisconnected: "),
        (SILENCE, "SMTPServerDisconnected: .*timed out"),
        (Raw(b"550 5.1.1 no"), "SMTPServerDisconnected: "),
        ("250 " + "x" * 70_000, "SMTPServerDisconnected: "),
    ],
    ids=str,
)
def test_an_end_in_the_midst_of_the_recipients(server: LocalSparkPost, said: Answer, reason: str) -> None:
    """Who was refused is; the others get the mail later, whether they had been taken, met the end, or were behind."""
    server.script = of_recipients(server, ana="550 5.1.1 nobody", rui=said)
    with override_settings(EMAIL_TIMEOUT=TIMEOUT if said is SILENCE else None):
        outcome, following = Slice(outgoing(ANA, EVA, RUI, ZOE), outgoing(ZOE)).deliver()
    assert outcome.accepted == ()
    assert outcome.rejected == {ANA: Reply(550, "5.1.1 nobody")}
    assert set(outcome.deferred) == {EVA, RUI, ZOE}
    for reply in outcome.deferred.values():
        assert re.match(reason, str(reply))
    assert not outcome.in_doubt
    assert following.accepted == (ZOE,)
    assert [one.recipients for one in server.mailbox] == [(ZOE,)]


@pytest.mark.parametrize("stage", ["data", "content"])
def test_refused_as_a_whole_after_some_recipients_were(server: LocalSparkPost, stage: str) -> None:
    """What is said of the mail concerns those who had been taken, and nobody else."""
    refused = {"eva": "451 4.7.1 later", "rui": "550 5.1.1 nobody"}
    server.script = of_recipients(server, **refused, **{stage: "554 5.7.1 spam"})
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA, RUI))
    assert outcome.deferred == {EVA: Reply(451, "4.7.1 later")}
    assert outcome.rejected == {ANA: Reply(554, "5.7.1 spam"), RUI: Reply(550, "5.1.1 nobody")}
    server.script = of_recipients(server, **refused, **{stage: "451 4.3.0 busy"})
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA, RUI))
    assert outcome.deferred == {ANA: Reply(451, "4.3.0 busy"), EVA: Reply(451, "4.7.1 later")}
    assert outcome.rejected == {RUI: Reply(550, "5.1.1 nobody")}
    assert len(server.mailbox) == 0


def test_doubt_after_some_recipients_were_refused(server: LocalSparkPost) -> None:
    """The account's fault at one of them does not wipe out that the others may have the mail."""
    server.script = of_recipients(server, eva="530 5.7.0 log in", rui="550 5.1.1 nobody", content=KEEP_AND_HANG_UP)
    (outcome,) = hand_over_by_django(outgoing(ANA, EVA, RUI))
    assert outcome.in_doubt
    assert set(outcome.deferred) == {ANA, EVA}
    assert set(outcome.rejected) == {RUI}
    assert [one.recipients for one in server.mailbox] == [(ANA,)]
