"""A mail as it goes over the wire: addresses, headers, attachments, and the bytes."""
