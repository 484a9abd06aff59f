"""The report of the changes that rules and passes made or refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from layergraph_rewrite.calls import Call, Site


class Entry(NamedTuple):
    """One change of a rule or pass, or one refusal.

    Attributes:
        by: the name of the rule or pass.
        site: the place.
        is_applied: False if the rule almost matched there.
        text: the change, or the reason against it.
    """

    by: str
    site: Site
    is_applied: bool
    text: str

    def __str__(self) -> str:
        return f"{self.by}{'' if self.is_applied else ' (refused)'}: {self.site}: {self.text}"


class Report:
    """The changes that rules and passes made to an IR, in order.

    Attributes:
        entries: all entries.
        differences: by the name of a pass, the largest change of an output, if ``verify`` was
            given.

    Example:
        >>> from layergraph_rewrite.report import Report
        >>> from layergraph_rewrite.calls import Site
        >>> report = Report()
        >>> with report.by("remove-dropout"):
        ...     report.add(Site("root", "drop"), "removed")
        >>> print(report)
        remove-dropout: root:drop: removed
        >>> len(report.applied)
        1
    """

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.differences: dict[str, float] = {}
        self._by = ""

    @contextmanager
    def by(self, name: str) -> Iterator[None]:
        """Attribute the entries inside a ``with`` block to a rule or pass."""
        before, self._by = self._by, name
        try:
            yield
        finally:
            self._by = before

    def add(self, where: Call | Site, text: str) -> None:
        """Add a change."""
        self._add(where, text, is_applied=True)

    def refuse(self, where: Call | Site, reason: str) -> None:
        """Add a place at which a rule or pass almost applied."""
        self._add(where, reason, is_applied=False)

    def _add(self, where: Call | Site, text: str, *, is_applied: bool) -> None:
        site = where.site if isinstance(where, Call) else where
        self.entries.append(Entry(self._by, site, is_applied, text))

    @property
    def applied(self) -> list[Entry]:
        """The changes."""
        return [entry for entry in self.entries if entry.is_applied]

    @property
    def refused(self) -> list[Entry]:
        """The places at which a rule or pass almost applied, each with the reason."""
        return [entry for entry in self.entries if not entry.is_applied]

    def __str__(self) -> str:
        lines = [str(entry) for entry in self.entries]
        lines += [
            f"{name}: largest difference {each:.3g}" for name, each in self.differences.items()
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Report({len(self.applied)} applied, {len(self.refused)} refused)"
