"""Everything that is SparkPost's own: names are normalised here, and nowhere else."""

#: Key in SparkPost's ``metadata`` under which a message's id rides along, for its events to find it.
MESSAGE_KEY = "mailer_id"
#: Header in which webhooks show a token. Deprecated, and still sent by those that were made with it.
TOKEN_HEADER = "X-MessageSystems-Webhook-Token"  # noqa: S105
