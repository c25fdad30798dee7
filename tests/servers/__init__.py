"""Real mail servers, tried with the mailer: ``make servers``."""
