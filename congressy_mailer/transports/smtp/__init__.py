"""Delivery over Django's SMTP backend with pipelining (RFC 2920)."""
