"""Rows as each release has stored them, from which later ones are upgraded.

Before a release: ``python -m tests.releases``. A file of a release that is out is never written again.
"""
