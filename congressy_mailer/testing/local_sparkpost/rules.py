"""Rules of an account where SparkPost's pages leave room, or contradict each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class AccountRules:
    """Rules of the local account. They may be changed at any time."""

    #: What happens to a mail to an address on the suppression list. With ``"asynchronous"`` it is injected, and then
    #: bounces with class 25 (article "Preparing For Asynchronous Suppressions"). With ``"inline"`` a call over HTTP to
    #: that recipient alone is answered with 400, and there is no event (article "Using Suppression Lists", "Suppression
    #: List Events and Error Messages").
    suppression: Literal["asynchronous", "inline"] = "asynchronous"
    #: Whether only hard bounces are added to the suppression list (article "Using Suppression Lists"), or also those of
    #: classes 25 and 80, which the article "Bounce Classification Codes" calls suppression-level events.
    listed_categories: Literal["hard", "hard and admin"] = "hard"
    #: What SparkPost's own ``List-Unsubscribe`` offers. Its pages mention a "1-click option" (article "List-unsubscribe
    #: Functionality") and an unsubscription by mail (the event's ``mailfrom`` in the article "Setting up Unsubscribe
    #: Links").
    list_unsubscribe: Literal["one-click", "mailto"] = "one-click"
    #: Whether transactional mail gets that header, too, as by the account's option ``transactional_unsub`` (API
    #: reference, "Account"). By default it does not (article "Remove List-Unsubscribe Header").
    transactional_unsub: bool = False
