"""How a recipient leaves: the links in mails, and the pages that they lead to (RFC 8058)."""
