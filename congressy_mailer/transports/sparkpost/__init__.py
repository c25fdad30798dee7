"""Delivery over SparkPost's HTTP API.

:mod:`.transport` takes the mails and makes its calls, several at a time; :mod:`.call_groups` decides which of them
share one. What an answer, or none, means for each mail is in :mod:`.call_outcomes`.
"""
