"""Every key of ``CONGRESSY_MAILER``, with its default and its meaning."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class MailerSettings:
    """The values of ``CONGRESSY_MAILER``, checked, with defaults for what the host leaves out."""

    #: Dotted path to the host's Celery app (``"project.celery:app"``). ``None``: ``app`` in the ``celery`` module
    #: beside the settings, else Celery's default or current app.
    CELERY_APP: str | None = None
    #: Celery queue of mail outside batches, of the sweep, and of SparkPost's events.
    QUEUE: str = "mailer"
    #: Celery queue of batches, of the purge, and of the synchronisation of the suppression list.
    BULK_QUEUE: str = "mailer.bulk"
    #: Longest time that ``send_mail()`` waits for the broker.
    PUBLISH_TIMEOUT: timedelta = timedelta(milliseconds=500)
    #: How long nothing is published after the broker has failed; doubles with each further failure, up to a minute.
    #: Meanwhile ``send_mail()`` only stores, and the sweep publishes afterwards.
    BREAKER_TIME: timedelta = timedelta(seconds=5)
    #: Most messages of one ``deliver`` task, and of one claim; a call of SparkPost's HTTP API may have more.
    SLICE_SIZE: int = 100
    #: After this time a ``deliver`` task puts the rest of its mail back on the queue, so that a worker stops quickly
    #: and one batch does not hold up other mail. While no other mail or task waits, it continues for up to half a
    #: minute.
    TIME_SLICE: timedelta = timedelta(seconds=1)
    #: How long a worker holds a message before another may take it. It must be longer than ``TIME_LIMIT`` and than the
    #: longest exchange with the mail server; check ``congressy_mailer.E012`` says how long that is.
    LEASE: timedelta = timedelta(minutes=15)
    #: What happens to a message if its worker dies while handing it over, or if the server's reply is lost:
    #: ``"resend"`` sends it again, so that a recipient may get it twice; ``"hold"`` sets it aside for a person to
    #: decide, so that nobody gets it twice.
    ON_CRASH: Literal["resend", "hold"] = "resend"
    #: Absolute path to a directory on the worker's host. In a subdirectory that no other user can read, worker
    #: processes note acceptances of mail servers until these are recorded in the database; so a killed process does not
    #: repeat mail whose acceptance it had read. ``"auto"``: the system's directory for temporary files. ``None``: no
    #: journal.
    JOURNAL_DIRECTORY: str | os.PathLike[str] | None = "auto"
    #: A message is set aside as ``held`` after its worker has died this often while holding it, so that a mail that
    #: crashes workers does not stop the others. The same happens if a mail server has taken its content this often
    #: without an answer in time: it may have arrived each time.
    MAX_CRASHES: int = 3
    #: A ``deliver`` task that takes longer is interrupted, and killed after ``LEASE``, both under Celery's prefork pool
    #: only. A template that never ends blocks a worker no longer than this.
    TIME_LIMIT: timedelta = timedelta(minutes=5)
    #: A published message counts as lost by the broker, and is published again, after this time, once a sweep that was
    #: published later has come through the queue. A worker may hold fetched tasks for as long. A message that has just
    #: been stored counts as lost after a twelfth of this time, because its id may never have been published.
    LOST_AFTER: timedelta = timedelta(minutes=1)
    #: How long mail that could be sent may wait before ``mailer health`` reports a problem: a message in the queue, or
    #: a batch of which nothing is sent. With a low ``RATE_LIMIT``, set it longer than the time between two mails.
    LONGEST_WAIT: timedelta = timedelta(minutes=10)
    #: How often each worker publishes a sweep, which publishes messages that are due and not moving.
    SWEEP_INTERVAL: timedelta = timedelta(seconds=15)
    #: How long after its first attempt a temporarily refused message is retried.
    RETRY_FOR: timedelta = timedelta(hours=48)
    #: First step of the exponential backoff between two attempts of a message; at least 5 seconds pass in any case
    #: (SparkPost, "SMTP and REST API Injection Best Practices").
    RETRY_BACKOFF: timedelta = timedelta(seconds=30)
    #: Longest wait between two attempts of one message.
    RETRY_BACKOFF_MAX: timedelta = timedelta(hours=2)
    #: First step of the backoff while a mail server is unavailable, and the shortest wait.
    UNAVAILABLE_BACKOFF: timedelta = timedelta(seconds=5)
    #: Longest wait before an unavailable mail server is tried again.
    UNAVAILABLE_BACKOFF_MAX: timedelta = timedelta(minutes=10)
    #: Most mails that all workers together hand to one mail backend, evenly spread: ``"100/s"``, ``"1000/m"`` or
    #: ``"20000/h"``. Each alias is counted separately, in the Redis that is Celery's broker; with another broker each
    #: process counts for itself. ``None``: no limit.
    RATE_LIMIT: str | None = None
    #: Most SMTP connections of all workers together to one mail backend, or simultaneous calls of SparkPost's HTTP API.
    #: Each alias is counted separately, in the same place as for ``RATE_LIMIT``. SparkPost allows 10 ("SMTP and REST
    #: API Injection Best Practices"). ``None``: one for each worker process or thread.
    MAX_CONNECTIONS: int | None = 10
    #: Name under which ``RATE_LIMIT``, ``MAX_CONNECTIONS`` and slow-downs are counted in Redis. Projects with the same
    #: name and Redis are counted together, alias by alias: for several projects that send over one account. ``None``:
    #: each project is counted separately.
    THROTTLING_GROUP: str | None = None
    #: How long the subject, text, context and attachments of a message are kept after it is final; ``None``: as long as
    #: the message. ``sensitive`` content is dropped as soon as it is sent.
    KEEP_CONTENT: timedelta | None = timedelta(days=30)
    #: How long a message is kept after it is final, with its recipients, state and events; ``None``: for ever. Its
    #: ``idempotency_key`` is valid for as long.
    KEEP_MESSAGES: timedelta | None = timedelta(days=365)
    #: Most bytes of all attachments of one message together, before encoding. The default leaves room for Base64 below
    #: the 20 MB that SparkPost recommends as a limit.
    MAX_ATTACHMENT_BYTES: int = 14_000_000
    #: Alias in ``STORAGES`` of the storage in which attachments wait for the worker. Web processes and workers must
    #: share it, and it should not be public.
    ATTACHMENT_STORAGE: str = "default"
    #: Mail backends for ``using=`` before Django 6.1, in the form of Django 6.1's ``MAILERS``: ``{"alias": {"BACKEND":
    #: "dotted.path", "OPTIONS": {…}}}``.
    TRANSPORTS: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    #: Options of :class:`congressy_mailer.backends.EmailBackend` if ``EMAIL_BACKEND`` names it; in ``MAILERS`` they are
    #: in its ``OPTIONS``. ``using`` is an alias in ``TRANSPORTS``; without it, mail is delivered over SMTP with the
    #: ``EMAIL_*`` settings.
    BACKEND_OPTIONS: Mapping[str, Any] = field(default_factory=dict)
    #: For a copy of production: all mail goes to the addresses in ``"to"``, except that recipients in ``"allow"``
    #: (addresses, or domains such as ``"@congressy.com"``) get their own. ``"subject"`` is a prefix of each subject. It
    #: applies to To, Cc and Bcc, to batches, and to every backend. ``None``: no redirection.
    REDIRECT: Mapping[str, Any] | None = None
    #: Dotted paths of functions that the worker calls with each mail before each attempt, for every backend. Their
    #: argument is a :class:`congressy_mailer.delivery.intercepting.InterceptedMail`.
    INTERCEPTORS: Sequence[str] = ()
    #: Aliases of mail backends for mail without ``using=`` while the default backend is unavailable; the first
    #: available one is used.
    FAILOVER: Sequence[str] = ()
    #: Addresses of operators who get a summary of failures, at most one an hour: messages that failed or were set
    #: aside, unavailable mail backends, tasks that end in errors. A worker sends it from ``SERVER_EMAIL``, outside the
    #: queue, over the first mail backend that is not known to fail. If no worker runs, there is no summary: monitor
    #: ``mailer health`` as well.
    FAILURE_SUMMARY_TO: Sequence[str] = ()
    #: Whether mail has SparkPost's ``X-MSYS-API`` header, which SparkPost removes: ``"auto"`` if the SMTP host is one
    #: of SparkPost's, ``"always"`` with every SMTP backend, or ``"never"``.
    SPARKPOST_HEADER: Literal["auto", "always", "never"] = "auto"
    #: Whose ``List-Unsubscribe`` header is in mail over SparkPost that is not transactional. SparkPost replaces any
    #: other by its own ("Gmail shows mailing list information"). ``"sparkpost"``: SparkPost's; its events tell who has
    #: clicked, and the recipient leaves the mail's list. ``"own"``: the mailer's or the caller's; SparkPost is told
    #: that such mail is transactional, and checks the transactional part of its suppression list.
    SPARKPOST_UNSUBSCRIBE: Literal["sparkpost", "own"] = "sparkpost"
    #: SparkPost's API key for the HTTP backend, the suppression list and the webhook. ``None``: these are not used.
    SPARKPOST_API_KEY: str | None = field(default=None, repr=False)
    #: Host of SparkPost's HTTP API, with its port unless that is 443; ``"api.eu.sparkpost.com"`` for EU accounts.
    SPARKPOST_API_HOST: str = "api.sparkpost.com"
    #: Timeout for connecting to SparkPost's HTTP API and for each read. A whole call may take four times as long, and
    #: at most half of ``TIME_LIMIT``.
    SPARKPOST_API_TIMEOUT: timedelta = timedelta(seconds=30)
    #: Credentials that the webhook accepts: ``"basic user:password"``, ``"bearer TOKEN"``, or ``"token SECRET"`` for
    #: the old ``X-MessageSystems-Webhook-Token`` header. Several are valid at once while one replaces another. Without
    #: any, every request is refused.
    WEBHOOK_SECRETS: Sequence[str] = field(default=(), repr=False)
    #: Most bytes of one batch of events. SparkPost's have a few hundred kilobytes.
    WEBHOOK_MAX_BYTES: int = 20_000_000
    #: How long batches of events are remembered, so that none is processed twice.
    KEEP_WEBHOOKS: timedelta = timedelta(days=7)
    #: What puts an address on the suppression list, and for which mail. ``"hard"``, ``"admin"``, ``"complaint"`` and
    #: ``"unsubscribe"`` are each ``"all"``, ``"transactional"``, ``"non_transactional"`` or ``None``. ``"soft"`` is the
    #: number of soft bounces within 30 days after which an address counts as a hard bounce, or ``None``. Missing keys
    #: have their defaults; :doc:`bounces` has the rule of each bounce class. An unsubscription from mail of a list
    #: concerns that list only.
    SUPPRESSION: Mapping[str, Any] = field(default_factory=dict)
    #: How often the suppression list is synchronised with SparkPost's, if there is a ``SPARKPOST_API_KEY``; ``None``:
    #: only by command.
    SUPPRESSION_SYNC: timedelta | None = timedelta(hours=1)
    #: Bearer token that Prometheus has to send to read the page ``metrics/``. ``None``: every request is refused.
    METRICS_TOKEN: str | None = field(default=None, repr=False)
    #: Log a line to ``congressy_mailer.outcomes`` for each attempt, with these fields for log collectors: id, attempt,
    #: outcome, the server's reply, duration.
    LOG_OUTCOMES: bool = False
    #: Name recipients in these lines and in OpenTelemetry's spans, and leave addresses in the server's replies.
    LOG_ADDRESSES: bool = False
    #: Address of the host's site, such as ``"https://www.congressy.com"``, for links in mails, which workers write.
    #: ``None``: mail has no unsubscribe link.
    SITE_URL: str | None = None
    #: Lists that a recipient may leave one by one: ids for ``list_id=`` (at most 255 letters, digits, - and _, with
    #: single dots between them), each with a name for people.
    LISTS: Mapping[str, Any] = field(default_factory=dict)
    #: Names without a dot that are accepted as domains of addresses, such as ``["web1", "mail"]`` for ``root@web1``;
    #: all other such names are refused. ``["*"]`` accepts any. ``localhost`` is always accepted.
    INTRANET_HOSTS: Sequence[str] = ()

    @property
    def longest_envelope(self) -> timedelta:
        """How long a mail server may take for the recipients of one mail: the rest must fit into ``TIME_LIMIT``."""
        return self.TIME_LIMIT / 4


#: What puts an address on the suppression list, and for which mail, unless ``SUPPRESSION`` says otherwise.
SUPPRESSION_RULES: Mapping[str, Any] = {
    "hard": "all",
    "admin": None,
    "complaint": "non_transactional",
    "unsubscribe": "non_transactional",
    "soft": None,
}
#: Options of :class:`congressy_mailer.backends.EmailBackend`.
BACKEND_OPTIONS = ("using", "priority", "sensitive", "expires_after", "attributes")
#: Those of SparkPost's suppression list (API reference, "Search Suppressions").
LIST_ID = re.compile(r"(?=.{1,255}\Z)[\w-]+(?:\.[\w-]+)*", re.ASCII)
