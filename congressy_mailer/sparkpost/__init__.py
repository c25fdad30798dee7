"""Everything that is SparkPost's own: names are normalised here, and nowhere else."""

#: Key in SparkPost's ``metadata`` under which a message's id rides along, for its events to find it.
MESSAGE_KEY = "mailer_id"
