"""Every change of ``Message.state`` and every question about what is due. No other part writes a state.

The rules hold on PostgreSQL, MariaDB, MySQL and SQLite alike: each change is one conditional ``UPDATE`` that names
the state it starts from and, while a message is being sent, the token of the claim. Whoever comes second
changes nothing.

:mod:`.rows` is what all of it stands on; :mod:`.adding` stores one message, :mod:`.bulk_insert` many; :mod:`.batches`
knows what a batch has left; :mod:`.claiming` gives messages out; :mod:`.results` writes down what became of them;
:mod:`.recovery` deals with those whose process died (:mod:`congressy_mailer.broker.processes`); :mod:`.sweeping` finds
what is due, and :mod:`.publishing` hands it to the broker; :mod:`.suppressing` leaves out suppressed recipients;
:mod:`.commands` is what people may ask for; :mod:`.waiting` and :mod:`.failures` are what
:mod:`congressy_mailer.health` asks; :mod:`.retention` drops what is old, and :mod:`.backoff` says when the
next attempt is due.
"""

from ..broker.processes import new_claim_token
from ..models.choices import FINAL
from ..models.transactions import database, is_away
from .adding import add
from .batches import (
    MAX_CONCURRENCY,
    add_to_batch,
    cancel_batch,
    claim_due_batches,
    close_batch,
    concurrency,
    count_overdue_batches,
    heartbeat,
    mark_batch_unpublished,
    open_batch,
    reschedule_batch,
    start_generation,
    state_counts,
    stored_keys,
)
from .bulk_insert import BatchMessage
from .claiming import (
    batch_with_content,
    claim,
    claim_from_batch,
    claim_waiting,
    has_waiting_messages,
    mark_unpublished,
    needing_solo,
    release,
    release_claim,
    set_route,
    start_handover,
)
from .commands import RETRYABLE, cancel, resend, retry
from .failures import failing_tasks, record_task_failure
from .recovery import record_crash
from .results import fail, make_due_now, postpone, record, record_accepted
from .retention import purge, remove_orphans
from .suppressing import remove_suppressed
from .sweeping import count_overdue, sweep
from .waiting import Queue, count_held, stuck_batches, waiting_batches, waiting_messages

__all__ = [
    "FINAL",
    "MAX_CONCURRENCY",
    "RETRYABLE",
    "BatchMessage",
    "Queue",
    "add",
    "add_to_batch",
    "batch_with_content",
    "cancel",
    "cancel_batch",
    "claim",
    "claim_due_batches",
    "claim_from_batch",
    "claim_waiting",
    "close_batch",
    "concurrency",
    "count_held",
    "count_overdue",
    "count_overdue_batches",
    "database",
    "fail",
    "failing_tasks",
    "has_waiting_messages",
    "heartbeat",
    "is_away",
    "make_due_now",
    "mark_batch_unpublished",
    "mark_unpublished",
    "needing_solo",
    "new_claim_token",
    "open_batch",
    "postpone",
    "purge",
    "record",
    "record_accepted",
    "record_crash",
    "record_task_failure",
    "release",
    "release_claim",
    "remove_orphans",
    "remove_suppressed",
    "reschedule_batch",
    "resend",
    "retry",
    "set_route",
    "start_generation",
    "start_handover",
    "state_counts",
    "stored_keys",
    "stuck_batches",
    "sweep",
    "waiting_batches",
    "waiting_messages",
]
