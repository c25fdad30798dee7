"""Every change of ``Message.state`` and every question about what is due. No other part writes a state.

The rules hold on PostgreSQL, MariaDB, MySQL and SQLite alike: each change is one conditional ``UPDATE`` that names
the state it starts from and, while a message is being sent, the token of the claim. Whoever comes second
changes nothing.

:mod:`.rows` is what all of it stands on; :mod:`.adding` stores one message, :mod:`.bulk_insert` many; :mod:`.batches`
knows what a batch has left; :mod:`.claiming` gives messages out; :mod:`.results` writes down what became of them;
:mod:`.recovery` deals with those whose process died (:mod:`congressy_mailer.broker.processes`); :mod:`.sweeping` finds
what is due, and :mod:`.publishing` hands it to the broker; :mod:`.suppressing` leaves out suppressed recipients;
:mod:`.commands` is what people may ask for; :mod:`.retention` drops what is old, and :mod:`.backoff` says when the
next attempt is due.
"""

from ..broker.processes import new_token
from ..models.choices import FINAL
from ..models.transactions import database
from .adding import add
from .batches import (
    LANES,
    add_to_batch,
    begin_round,
    cancel_batch,
    close_batch,
    counts,
    due_batches,
    keep_watch,
    lanes,
    open_batch,
    overdue_batches,
    rest,
    stored_keys,
    unpublished_batch,
)
from .bulk_insert import Line
from .claiming import (
    anything_waiting,
    batch_with_content,
    begin,
    claim,
    claim_of_batch,
    claim_waiting,
    give_back,
    note_route,
    release,
    suspects,
    unpublished,
)
from .commands import RETRYABLE, cancel, resend, retry
from .recovery import crashed
from .results import fail, hasten, postpone, record, record_accepted
from .retention import purge, remove_orphans
from .suppressing import leave_out
from .sweeping import overdue, sweep

__all__ = [
    "FINAL",
    "LANES",
    "RETRYABLE",
    "Line",
    "add",
    "add_to_batch",
    "anything_waiting",
    "batch_with_content",
    "begin",
    "begin_round",
    "cancel",
    "cancel_batch",
    "claim",
    "claim_of_batch",
    "claim_waiting",
    "close_batch",
    "counts",
    "crashed",
    "database",
    "due_batches",
    "fail",
    "give_back",
    "hasten",
    "keep_watch",
    "lanes",
    "leave_out",
    "new_token",
    "note_route",
    "open_batch",
    "overdue",
    "overdue_batches",
    "postpone",
    "purge",
    "record",
    "record_accepted",
    "release",
    "remove_orphans",
    "resend",
    "rest",
    "retry",
    "stored_keys",
    "suspects",
    "sweep",
    "unpublished",
    "unpublished_batch",
]
