"""Every change of ``Message.state`` and every question about what is due. No other part writes a state.

The rules hold on PostgreSQL, MariaDB, MySQL and SQLite alike: each change is one conditional ``UPDATE`` that names
the state it starts from and, while a message is being sent, the token of the claim. Whoever comes second
changes nothing.

:mod:`.rows` is what all of it stands on; :mod:`.claiming` stores messages and gives them out; :mod:`.results` writes
down what became of them; :mod:`.holders` knows which processes hold some, and :mod:`.recovery` deals with those that
died; :mod:`.sweeping` finds what is due; :mod:`.decisions` is what people may ask for; :mod:`.retention` drops what is
old.
"""

from .claiming import add, begin, claim, release, suspects, unpublished
from .decisions import FINAL, RETRYABLE, cancel, resend, retry
from .holders import new_token
from .recovery import crashed
from .results import fail, hasten, postpone, record
from .retention import purge, remove_orphans
from .rows import database
from .sweeping import overdue, sweep

__all__ = [
    "FINAL",
    "RETRYABLE",
    "add",
    "begin",
    "cancel",
    "claim",
    "crashed",
    "database",
    "fail",
    "hasten",
    "new_token",
    "overdue",
    "postpone",
    "purge",
    "record",
    "release",
    "remove_orphans",
    "resend",
    "retry",
    "suspects",
    "sweep",
    "unpublished",
]
