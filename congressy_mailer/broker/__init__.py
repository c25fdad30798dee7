"""The host's Celery broker: its app, connections with timeouts of our own, and publishing over them."""
