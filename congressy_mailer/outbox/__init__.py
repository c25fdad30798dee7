"""Every change of ``Message.state`` and every question about what is due. No other part writes a state.

The rules hold on PostgreSQL, MariaDB, MySQL and SQLite alike: each change is one conditional ``UPDATE`` that names
the state it starts from and, while a message is being sent, the token of the claim. The second of two callers
changes nothing.

:mod:`.rows` is what all of it stands on; :mod:`.adding` stores one message, :mod:`.bulk_insert` many; :mod:`.batches`
knows what a batch has left, :mod:`.batch_storing` takes its recipients, and :mod:`.batch_stopping` ends what waits with
it; :mod:`.claiming` chooses what a claim takes, from where :mod:`.cursors` says,
:mod:`.claim_reading` carries it out by the statement of :mod:`.claim_statement`, and :mod:`.leases` holds what was
claimed or gives it back; :mod:`.queued` knows what the broker took, and :mod:`.expiry` ends what is too late;
:mod:`.results` writes down what became of them; :mod:`.recovery` deals with those whose process died
(:mod:`congressy_mailer.broker.claim_owners`), of which :mod:`.journal_folder` may tell what a server had taken, in the
form of :mod:`.journal_file`; :mod:`.due_mail` finds what is due, and :mod:`.publishing` hands it to the broker;
:mod:`.suppressing` leaves out suppressed recipients; :mod:`.commands` is what people may ask for, and :mod:`.pausing`
holds back what they have paused; :mod:`.waiting` and :mod:`.failures` are what :mod:`congressy_mailer.health` asks;
:mod:`.retention` drops what is old, :mod:`.files` deletes what lay in the storage, if it is this database's to delete
(:mod:`.installation`); and :mod:`.backoff` says when the next attempt is due.
"""

from ..broker.claim_owners import new_claim_token
from ..models.choices import FINAL, RETRYABLE
from ..models.transactions import database, is_away
from .adding import add, add_many
from .batch_stopping import cancel_batch
from .batch_storing import STORING_LEASE, add_to_batch, begin_storing, close_batch, end_storing, open_batch, stored_keys
from .batches import (
    MAX_CONCURRENCY,
    claim_due_batches,
    concurrency,
    count_overdue_batches,
    heartbeat,
    is_batch_stored,
    mark_batch_unpublished,
    other_batches_wait,
    reschedule_batch,
    start_generation,
    state_counts,
)
from .bulk_insert import BatchMessage
from .claim_statement import IS_UNAVAILABLE, answer, forget_answer, may_be_suppressed
from .claiming import (
    batch_with_content,
    claim,
    claim_from_batch,
    claim_waiting,
    has_waiting_messages,
    needing_solo,
    others_wait,
)
from .commands import cancel, replace_recipients, resend, retry
from .due_mail import count_overdue, sweep
from .failures import failing_tasks, record_task_failure
from .files import (
    delete_files,
    failing_files,
    find_lost_files,
    find_shared_file,
    forget_files,
    rename_file,
    reserve_file,
    share_file,
)
from .installation import (
    begin_new_installation,
    current_installation,
    folder_is_contested,
    keep_installation,
    may_delete_files,
)
from .journal_file import Acceptance, Journal, claim_digest, recipient_digest
from .journal_folder import journal_failed, put_back_journal, remove_ended_journals, take_journal
from .leases import extend_claim, release, release_claim, set_route, start_handover
from .pausing import (
    DEFAULT_BACKEND,
    ActivePauses,
    active_pauses,
    add_pause,
    count_paused,
    end_pause,
    ended_pauses,
    forget_ended_pauses,
    forget_pauses,
    hold,
    hold_batch,
    list_pauses,
    release_batches,
    release_messages,
)
from .queued import mark_published_again, mark_unpublished
from .recovery import record_crash
from .results import (
    fail,
    has_sent_since,
    move_due_time,
    postpone,
    record,
    record_accepted,
    record_noted,
    withhold,
)
from .retention import delete_messages, purge, purge_overdue_since
from .rows import add_event, any_stored
from .suppressing import remove_suppressed
from .waiting import (
    COUNTED,
    COUNTED_BATCHES,
    Deferred,
    Queue,
    count_held,
    count_open,
    deferred_messages,
    stuck_batches,
    waiting_batches,
    waiting_messages,
    waiting_senders,
)

__all__ = [
    "IS_UNAVAILABLE",
    "answer",
    "forget_answer",
    "may_be_suppressed",
    "COUNTED",
    "COUNTED_BATCHES",
    "DEFAULT_BACKEND",
    "FINAL",
    "MAX_CONCURRENCY",
    "RETRYABLE",
    "STORING_LEASE",
    "Acceptance",
    "ActivePauses",
    "BatchMessage",
    "Deferred",
    "Journal",
    "Queue",
    "active_pauses",
    "add",
    "add_event",
    "add_many",
    "add_pause",
    "add_to_batch",
    "any_stored",
    "batch_with_content",
    "begin_new_installation",
    "begin_storing",
    "cancel",
    "cancel_batch",
    "claim",
    "claim_digest",
    "claim_due_batches",
    "claim_from_batch",
    "claim_waiting",
    "close_batch",
    "concurrency",
    "count_held",
    "count_open",
    "count_overdue",
    "count_overdue_batches",
    "count_paused",
    "current_installation",
    "database",
    "deferred_messages",
    "delete_files",
    "delete_messages",
    "end_pause",
    "end_storing",
    "ended_pauses",
    "extend_claim",
    "fail",
    "failing_files",
    "failing_tasks",
    "find_lost_files",
    "find_shared_file",
    "folder_is_contested",
    "forget_ended_pauses",
    "forget_files",
    "forget_pauses",
    "has_sent_since",
    "has_waiting_messages",
    "heartbeat",
    "hold",
    "hold_batch",
    "is_away",
    "is_batch_stored",
    "journal_failed",
    "keep_installation",
    "list_pauses",
    "mark_batch_unpublished",
    "mark_published_again",
    "mark_unpublished",
    "may_delete_files",
    "move_due_time",
    "needing_solo",
    "new_claim_token",
    "open_batch",
    "other_batches_wait",
    "others_wait",
    "postpone",
    "purge",
    "purge_overdue_since",
    "put_back_journal",
    "recipient_digest",
    "record",
    "record_accepted",
    "record_crash",
    "record_noted",
    "record_task_failure",
    "release",
    "release_batches",
    "release_claim",
    "release_messages",
    "remove_ended_journals",
    "remove_suppressed",
    "rename_file",
    "replace_recipients",
    "reschedule_batch",
    "resend",
    "reserve_file",
    "retry",
    "set_route",
    "share_file",
    "start_generation",
    "start_handover",
    "state_counts",
    "stored_keys",
    "stuck_batches",
    "sweep",
    "take_journal",
    "waiting_batches",
    "waiting_messages",
    "waiting_senders",
    "withhold",
]
