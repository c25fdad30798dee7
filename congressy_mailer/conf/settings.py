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

    #: Dotted path to the host's Celery app (``"project.celery:app"``). ``None``: ``app`` in the ``celery``
    #: module beside the settings, else the app that Celery takes for the default or current one.
    CELERY_APP: str | None = None
    #: Celery queue of transactional mail and of the sweep.
    QUEUE: str = "mailer"
    #: Celery queue of bulk mail.
    BULK_QUEUE: str = "mailer.bulk"
    #: Longest time that publishing may keep the caller of ``send_mail()`` when the broker does not answer.
    PUBLISH_TIMEOUT: timedelta = timedelta(milliseconds=500)
    #: How long publishing is left alone after the broker failed; doubles with each further failure, up to
    #: a minute. Meanwhile ``send_mail()`` only stores, and the sweep publishes afterwards.
    BREAKER_TIME: timedelta = timedelta(seconds=5)
    #: Most messages in one ``deliver`` task.
    SLICE_SIZE: int = 100
    #: After this time a ``deliver`` task puts what it has not begun back on the queue, so that a worker stops
    #: quickly and one batch does not hold up the rest. It goes on while the worker knows of nobody else who waits, for
    #: half a minute at the most.
    TIME_SLICE: timedelta = timedelta(seconds=1)
    #: How long a worker may hold a message before another may take it. It must be longer than ``TIME_LIMIT``, and
    #: longer than the longest exchange with the mail server; check ``congressy_mailer.E012`` says how long that is.
    LEASE: timedelta = timedelta(minutes=15)
    #: What becomes of a message whose worker died while holding it: ``"resend"`` sends it (perhaps a second
    #: time), ``"hold"`` sets it aside for a person to decide (never a second time).
    ON_CRASH: Literal["resend", "hold"] = "resend"
    #: A directory of the worker's host, as an absolute path. There, in a directory of their own that nobody else can
    #: read, worker processes note what a mail server has accepted until that is recorded: one that is killed repeats
    #: nothing of which it had read the server's reply, once a worker on the same host finds what it held. ``"auto"``:
    #: the system's directory for temporary files. ``None``: nothing is noted.
    JOURNAL_DIRECTORY: str | os.PathLike[str] | None = "auto"
    #: A message whose worker died this often while holding it is set aside as ``held``, so that one which makes
    #: workers crash or hang does not stop the others. So is one whose mail server took the content this often and
    #: did not say in time what became of it: it may have arrived each time.
    MAX_CRASHES: int = 3
    #: A ``deliver`` task that takes longer is interrupted, and killed when its ``LEASE`` is over (both under Celery's
    #: prefork pool): a template that never ends holds a worker no longer than this.
    TIME_LIMIT: timedelta = timedelta(minutes=5)
    #: A published message counts as lost by the broker, and is published again, when this time is over and a sweep
    #: that was published later has come through the queue. It leaves room for the tasks that a worker has fetched
    #: and not begun. A message that has just been stored counts as lost after a twelfth of it: its id may never
    #: have been published.
    LOST_AFTER: timedelta = timedelta(minutes=1)
    #: How long mail that could be sent may wait before ``mailer health`` calls that a problem: a message in the queue,
    #: or a batch of which nothing is sent meanwhile. With a low ``RATE_LIMIT``, longer than from one mail to the next.
    LONGEST_WAIT: timedelta = timedelta(minutes=10)
    #: How often each worker publishes a sweep, which dispatches whatever is due and not moving.
    SWEEP_INTERVAL: timedelta = timedelta(seconds=15)
    #: How long a message that is refused temporarily is tried again, from its first attempt.
    RETRY_FOR: timedelta = timedelta(hours=48)
    #: First step of the exponential backoff between the attempts of one message; never less than 5 seconds
    #: pass (SparkPost, "SMTP and REST API Injection Best Practices").
    RETRY_BACKOFF: timedelta = timedelta(seconds=30)
    #: Longest wait between two attempts of one message.
    RETRY_BACKOFF_MAX: timedelta = timedelta(hours=2)
    #: First step of the backoff while the mail server cannot be used, and the least that is ever waited.
    UNAVAILABLE_BACKOFF: timedelta = timedelta(seconds=5)
    #: Longest time until a mail server that cannot be used is tried again.
    UNAVAILABLE_BACKOFF_MAX: timedelta = timedelta(minutes=10)
    #: Most mails that all workers together hand to one mail backend, spread evenly: ``"100/s"``, ``"1000/m"`` or
    #: ``"20000/h"``. Each alias has a count of its own. ``None``: as fast as it goes. They are counted in the Redis
    #: that is Celery's broker; with another broker each process counts for itself.
    RATE_LIMIT: str | None = None
    #: Most SMTP connections that all workers together have open for one mail backend, or calls of SparkPost's HTTP API
    #: that they make at the same time, each alias for itself, counted where ``RATE_LIMIT`` is. SparkPost allows 10
    #: ("SMTP and REST API Injection Best Practices"). ``None``: as many as there are worker processes and threads.
    MAX_CONNECTIONS: int | None = 10
    #: Name under which ``RATE_LIMIT``, ``MAX_CONNECTIONS`` and slow-downs are counted in Redis. Projects with the same
    #: name and the same Redis count together, each alias with the same alias of the others: for one account at a mail
    #: server that several of them use. ``None``: each project counts for itself.
    THROTTLING_GROUP: str | None = None
    #: How long the subject, text, context and attachments of a message are kept after its end; ``None``: as long
    #: as the message. What is ``sensitive`` goes as soon as it is sent.
    KEEP_CONTENT: timedelta | None = timedelta(days=30)
    #: How long a message is kept after its end, with its recipients, state and events; ``None``: for ever.
    #: Its ``idempotency_key`` is known for as long.
    KEEP_MESSAGES: timedelta | None = timedelta(days=365)
    #: Most bytes of all attachments of one message together, before encoding. The default leaves room for
    #: Base64 below the 20 MB that SparkPost asks to stay under.
    MAX_ATTACHMENT_BYTES: int = 14_000_000
    #: Alias in ``STORAGES`` where attachments wait for the worker. It must be the same place for the web
    #: processes and the workers, and should not be served to the public.
    ATTACHMENT_STORAGE: str = "default"
    #: Mail backends for ``using=`` on Django before 6.1, in the shape of Django 6.1's ``MAILERS``:
    #: ``{"alias": {"BACKEND": "dotted.path", "OPTIONS": {…}}}``.
    TRANSPORTS: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)
    #: Options of :class:`congressy_mailer.backends.EmailBackend` where ``EMAIL_BACKEND`` names it; in ``MAILERS`` they
    #: stand in its ``OPTIONS``. ``using`` is an alias in ``TRANSPORTS``; without it mail is delivered over SMTP, as
    #: ``EMAIL_*`` say.
    BACKEND_OPTIONS: Mapping[str, Any] = field(default_factory=dict)
    #: For a copy of production: nobody is written to but those in ``"to"`` and those in ``"allow"``, addresses and
    #: domains such as ``"@congressy.com"``; ``"subject"`` is put before each subject. It concerns all mail that leaves,
    #: also by Cc and Bcc, of batches, and over any backend. ``None``: mail goes to whom it is for.
    REDIRECT: Mapping[str, Any] | None = None
    #: Dotted paths of functions that are called in the worker with each mail before it leaves, over any backend, and
    #: again at each attempt. Their argument is a :class:`congressy_mailer.delivery.intercepting.InterceptedMail`.
    INTERCEPTORS: Sequence[str] = ()
    #: Aliases of mail backends that take over, the first that can be used, while the default one is unavailable, for
    #: mail that names none with ``using=``.
    FAILOVER: Sequence[str] = ()
    #: Addresses of operators who get a summary of what fails, at most one an hour: messages that failed or were set
    #: aside, mail backends that cannot be used, tasks that end in errors. It is sent by a worker from ``SERVER_EMAIL``,
    #: past the queue, over the first mail backend that is not known to fail. It tells nothing where no worker runs:
    #: that is what ``mailer health`` is for.
    FAILURE_SUMMARY_TO: Sequence[str] = ()
    #: Whether mail carries SparkPost's ``X-MSYS-API`` header, which its own servers take away again: ``"auto"`` where
    #: the SMTP host is one of SparkPost's, ``"always"`` with every SMTP backend, or ``"never"``.
    SPARKPOST_HEADER: Literal["auto", "always", "never"] = "auto"
    #: Whose ``List-Unsubscribe`` header mail that is not transactional has over SparkPost, which puts its own over any
    #: other ("Gmail shows mailing list information"). ``"sparkpost"``: SparkPost's; a click on it leaves the list of
    #: the mail, as SparkPost's events tell. ``"own"``: ours or the caller's; such mail is called transactional to
    #: SparkPost, which looks at the transactional part of its suppression list then.
    SPARKPOST_UNSUBSCRIBE: Literal["sparkpost", "own"] = "sparkpost"
    #: SparkPost's API key for what is not sent by SMTP: the HTTP backend, the suppression list, the webhook. ``None``:
    #: none of that is used.
    SPARKPOST_API_KEY: str | None = field(default=None, repr=False)
    #: Host of SparkPost's HTTP API, with its port where it is not 443; ``"api.eu.sparkpost.com"`` for EU accounts.
    SPARKPOST_API_HOST: str = "api.sparkpost.com"
    #: How long SparkPost's HTTP API may take to connect, and may be silent. A whole call, its answer included, may take
    #: four times as long, and half of ``TIME_LIMIT`` at the most.
    SPARKPOST_API_TIMEOUT: timedelta = timedelta(seconds=30)
    #: What a caller of the webhook has to show, any of these: ``"basic user:password"``, ``"bearer TOKEN"``, or
    #: ``"token SECRET"`` for the old ``X-MessageSystems-Webhook-Token`` header. Several at once while one is replaced
    #: by another. Without any, everybody is refused.
    WEBHOOK_SECRETS: Sequence[str] = field(default=(), repr=False)
    #: Most bytes of one batch of events. SparkPost's have a few hundred kilobytes.
    WEBHOOK_MAX_BYTES: int = 20_000_000
    #: How long it is known which batches of events have come, so that none is processed twice.
    KEEP_WEBHOOKS: timedelta = timedelta(days=7)
    #: What puts an address on the suppression list, and for which mail: ``"hard"``, ``"admin"``, ``"complaint"`` and
    #: ``"unsubscribe"`` each with ``"all"``, ``"transactional"``, ``"non_transactional"`` or ``None``; and ``"soft"``
    #: with a number of soft bounces within 30 days, after which the address counts as a hard bounce, or ``None``. What
    #: is left out stays as it is by default; :doc:`bounces` has the rule of each class of bounces. What a recipient
    #: unsubscribes from is that list alone, where it is one.
    SUPPRESSION: Mapping[str, Any] = field(default_factory=dict)
    #: How often the suppression list is brought together with SparkPost's, where there is a ``SPARKPOST_API_KEY``;
    #: ``None``: by command only.
    SUPPRESSION_SYNC: timedelta | None = timedelta(hours=1)
    #: What Prometheus has to show as a bearer token to read the page ``metrics/``. ``None``: everybody is refused.
    METRICS_TOKEN: str | None = field(default=None, repr=False)
    #: Write a line to the log ``congressy_mailer.outcomes`` for each attempt, with its fields for log collectors: id,
    #: attempt, outcome, the server's words, duration.
    LOG_OUTCOMES: bool = False
    #: Have these lines, and OpenTelemetry's spans, name recipients, and leave addresses in the server's words.
    LOG_ADDRESSES: bool = False
    #: Where the host's site is, such as ``"https://www.congressy.com"``: for links in mails, which workers write.
    #: ``None``: mail has no link to unsubscribe.
    SITE_URL: str | None = None
    #: Lists that a recipient may leave one by one: their ids for ``list_id=`` (at most 255 letters, digits, - and _,
    #: with single dots between them), and their names for people.
    LISTS: Mapping[str, Any] = field(default_factory=dict)
    #: Hosts of the host's own network whose names have no dot, such as ``["web1", "mail"]``: addresses like
    #: ``root@web1`` are accepted for them, and refused for all others. ``["*"]`` accepts any such name. ``localhost``
    #: is always accepted.
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
