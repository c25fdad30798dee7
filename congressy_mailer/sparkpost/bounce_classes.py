"""SparkPost's classes of bounces, and what follows from each ("Bounce Classification Codes").

A class says what an answer of the recipient's server, or of SparkPost itself, was taken for. Several of them are no
failed delivery at all: an unsubscription by mail, or an automatic answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ..models import BounceCategory

_SUPPORT = "https://support.sparkpost.com/docs"
#: SparkPost's table of classes.
CLASSES_PAGE = f"{_SUPPORT}/deliverability/bounce-classification-codes"


class Effect(StrEnum):
    """Consequence of a bounce of a class."""

    #: The mail has bounced, and the address accepts no mail: rule ``"hard"`` of ``SUPPRESSION``.
    HARD = "hard"
    #: The mail has bounced; such bounces are counted by rule ``"soft"``.
    SOFT = "soft"
    #: The mail has bounced, for a cause other than the address.
    BLOCK = "block"
    #: SparkPost has not tried to deliver the mail: rule ``"admin"``, which suppresses no address by default.
    POLICY = "policy"
    #: The recipient unsubscribes: rule ``"unsubscribe"``, for the mail's list only if it has one.
    UNSUBSCRIBE = "unsubscribe"
    #: The mail has arrived and was answered; nothing changes.
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class BounceClass:
    """One class."""

    #: SparkPost's number of it.
    code: int
    #: SparkPost's name of it.
    name: str
    #: SparkPost's category of it.
    category: BounceCategory
    #: Consequence.
    effect: Effect
    #: SparkPost's page behind the effect.
    page: str = CLASSES_PAGE


_HARD, _SOFT, _BLOCK = BounceCategory.HARD, BounceCategory.SOFT, BounceCategory.BLOCK
_ADMIN, _UNDETERMINED = BounceCategory.ADMIN, BounceCategory.UNDETERMINED

#: Every class, by its number.
BOUNCE_CLASSES: Mapping[int, BounceClass] = {
    one.code: one
    for one in (
        BounceClass(1, "Undetermined", _UNDETERMINED, Effect.BLOCK),
        BounceClass(10, "Invalid Recipient", _HARD, Effect.HARD, f"{_SUPPORT}/user-guide/using-suppression-lists"),
        BounceClass(20, "Soft Bounce", _SOFT, Effect.SOFT),
        BounceClass(21, "DNS Failure", _SOFT, Effect.SOFT),
        BounceClass(22, "Mailbox Full", _SOFT, Effect.SOFT),
        BounceClass(23, "Too Large", _SOFT, Effect.SOFT),
        BounceClass(24, "Timeout", _SOFT, Effect.SOFT),
        # Also of addresses that are on SparkPost's list already, and of a campaign that was cancelled.
        BounceClass(25, "Admin Failure", _ADMIN, Effect.POLICY, f"{_SUPPORT}/faq/suppression-timing"),
        BounceClass(
            30, "Generic Bounce: No RCPT", _HARD, Effect.HARD, f"{_SUPPORT}/user-guide/using-suppression-lists"
        ),
        BounceClass(40, "Generic Bounce", _SOFT, Effect.SOFT),
        BounceClass(50, "Mail Block", _BLOCK, Effect.BLOCK),
        BounceClass(51, "Spam Block", _BLOCK, Effect.BLOCK),
        BounceClass(52, "Spam Content", _BLOCK, Effect.BLOCK),
        BounceClass(53, "Prohibited Attachment", _BLOCK, Effect.BLOCK),
        BounceClass(54, "Relaying Denied", _BLOCK, Effect.BLOCK),
        BounceClass(60, "Auto-Reply", _SOFT, Effect.ANSWER),
        BounceClass(70, "Transient Failure", _SOFT, Effect.SOFT),
        BounceClass(80, "Subscribe", _ADMIN, Effect.ANSWER),
        BounceClass(90, "Unsubscribe", _HARD, Effect.UNSUBSCRIBE),
        BounceClass(100, "Challenge-Response", _SOFT, Effect.ANSWER),
    )
}
_UNKNOWN = BounceClass(0, "", BounceCategory.UNDETERMINED, Effect.BLOCK)

# What SparkPost says of an address on its own suppression list, or on the one of all its customers ("Preparing For
# Asynchronous Suppressions"), and of a campaign that was cancelled ("Scheduling Your Emails Using the Transmissions
# API").
_OF_SPARKPOST = re.compile(r"suppressed due to (?:customer|system) policy|campaign cancell?ed", re.IGNORECASE)


def bounce_class(code: int | None) -> BounceClass:
    """The class of a number; one that says nothing where the number is unknown or missing."""
    return BOUNCE_CLASSES.get(code or 0, _UNKNOWN)


def is_about_address(reason: str) -> bool:
    """Whether SparkPost's reason for class 25 may be about the address.

    Args:
        reason: its words; empty where they are unknown, and then nothing is held against the address.
    """
    return bool(reason) and _OF_SPARKPOST.search(reason) is None
