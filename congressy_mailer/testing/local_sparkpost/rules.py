"""Rules of an account where SparkPost's pages leave room, or contradict each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class AccountRules:
    """What the account does; may be changed at any time."""

    #: What comes of a mail to an address on the suppression list. ``"asynchronous"``: an injection, then a bounce of
    #: class 25 (article "Preparing For Asynchronous Suppressions"). ``"inline"``: over HTTP, to one recipient alone, an
    #: answer of 400 and no event (article "Using Suppression Lists", "Suppression List Events and Error Messages").
    suppression: Literal["asynchronous", "inline"] = "asynchronous"
    #: Bounces of which categories come onto the suppression list: hard ones alone (article "Using Suppression Lists"),
    #: or those of class 25 and 80, too, which the article "Bounce Classification Codes" calls suppression-level events.
    listed_categories: Literal["hard", "hard and admin"] = "hard"
    #: What SparkPost's own ``List-Unsubscribe`` offers. Its pages speak of a "1-click option" (article
    #: "List-unsubscribe Functionality") and of a mail that comes back (article "Setting up Unsubscribe Links":
    #: the event's ``mailfrom``).
    list_unsubscribe: Literal["one-click", "mailto"] = "one-click"
    #: Whether it is put over transactional mail, too: the account's option ``transactional_unsub`` (API reference,
    #: "Account"). By default it is not (article "Remove List-Unsubscribe Header").
    transactional_unsub: bool = False
