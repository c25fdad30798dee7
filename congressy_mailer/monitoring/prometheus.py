"""The measures for Prometheus: its text format, and a collector for the registry of ``prometheus_client``.

Several processes need no directory that they share: each tells what all have written to the database.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .measures import Measure, measures

#: Of the text format.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SPECIAL = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def exposition() -> str:
    """All measures in Prometheus' text format ("Exposition formats", version 0.0.4)."""
    return "".join(line for measure in measures() for line in _lines(measure))


def _lines(measure: Measure) -> Iterator[str]:
    name = f"{measure.name}_total" if measure.kind == "counter" else measure.name
    yield f"# HELP {name} {measure.meaning.translate(_SPECIAL)}\n# TYPE {name} {measure.kind}\n"
    for value in measure.values:
        labels = ",".join(f'{label}="{text.translate(_SPECIAL)}"' for label, text in value.labels.items())
        yield f"{measure.name}{value.suffix}{f'{{{labels}}}' if labels else ''} {value.value}\n"


class MailerCollector:
    """Adds the measures to what a project exports by ``prometheus_client`` already.

    .. code-block:: python

       from prometheus_client import REGISTRY
       from congressy_mailer.monitoring.prometheus import MailerCollector

       REGISTRY.register(MailerCollector())

    It needs the extra ``congressy-mailer[prometheus]``. Under ``PROMETHEUS_MULTIPROC_DIR``, register it with the
    registry that the view makes, as ``MultiProcessCollector`` is.
    """

    def describe(self) -> list[Any]:
        """Nothing: so no query is made while it is registered, when the database may not be there yet."""
        return []

    def collect(self) -> Iterator[Any]:
        """All measures, as of now."""
        from prometheus_client.core import Metric

        for measure in measures():
            family = Metric(measure.name, measure.meaning, measure.kind)
            for value in measure.values:
                family.add_sample(measure.name + value.suffix, labels=value.labels, value=value.value)
            yield family
