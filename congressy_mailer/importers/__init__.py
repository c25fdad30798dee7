"""What other packages have queued, brought into the outbox: each mail once, and no longer queued where it was.

Their models are found by name: none of these packages needs to be installed for anything else.
"""
