"""The report of a verification: one entry for each check."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from layergraph.ir import Ir

Status = Literal["passed", "failed", "refused", "skipped"]


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: the name of the check.
        status: ``passed``; ``failed``; ``refused``, if a guard of the rebuilt model raises an error
            for a call unlike that of the capture; or ``skipped``, if there is nothing to compare.
        detail: a summary; where the two models differ and by how much; or the reason of a refusal
            or a skip.
    """

    name: str
    status: Status
    detail: str = ""


@dataclass(eq=False)
class Report:
    """The outcomes of all checks of :func:`verify`; ``str()`` shows them as a table.

    Attributes:
        checks: one entry for each check, in the order in which the checks ran.
        ir: the model's IR; None if the capture failed.
        rebuilt: the model that was built from the IR; None if the build failed.
    """

    checks: list[Check] = field(default_factory=list)
    ir: Ir | None = None
    rebuilt: nn.Module | None = None

    @property
    def ok(self) -> bool:
        """Return whether no check failed."""
        return not any(check.status == "failed" for check in self.checks)

    def __bool__(self) -> bool:
        raise TypeError("a report is neither true nor false; use its attribute .ok")

    def __str__(self) -> str:
        width = max((len(check.name) for check in self.checks), default=0)
        lines = [f"{each.name:{width}}  {each.status:7}  {each.detail}" for each in self.checks]
        counts = Counter(check.status for check in self.checks)
        lines.append(", ".join(f"{count} {status}" for status, count in counts.items()))
        return "\n".join(line.rstrip() for line in lines)
