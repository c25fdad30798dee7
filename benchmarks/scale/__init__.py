"""How the outbox does beside a long history: ``python -m benchmarks.scale``, which ``make scale`` runs.

On each database server there are two databases, one with 10,000 finished messages and a large one (:mod:`.history`).
Whatever workers and callers do with the outbox is done in both in turns, by our own code (:mod:`.work`), and compared;
:mod:`.held` is what happens while a host's transaction is open, :mod:`.storing` while a batch is stored, and
:mod:`.seen` how long people and monitoring wait for the admin, the commands and the pages that tell how the mail is,
with all that lies beside the messages (:mod:`.surroundings`).
"""
