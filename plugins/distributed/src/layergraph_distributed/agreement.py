"""Steps that all processes take together, or none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from layergraph.errors import FileError, first_line
from layergraph_files.parse_errors import shown

T = TypeVar("T")


class Agreement:
    """The processes of the default group, which take the steps of one save together.

    Args:
        target: the path of the model, for errors.

    Raises:
        FileError: torch.distributed has no group of processes.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        if not dist.is_initialized():
            raise FileError(
                f"{shown(target)}: the tensors are distributed, but torch.distributed has no group "
                "of processes; call torch.distributed.init_process_group before"
            )
        self.rank = dist.get_rank()

    def take(self, step: Callable[[], T]) -> list[T]:
        """Take a step in all processes, and return the results of all processes, by rank.

        Raises:
            FileError: the step failed in another process, or this process waited for another one
                for longer than the timeout of the group.
            Exception: the error that the step raised in this process.
        """
        failure: Exception | None = None
        given: T | None = None
        try:
            given = step()
        except Exception as error:  # tell the other processes before raising it
            failure = error
        answers: list[Any] = [None] * dist.get_world_size()
        try:
            said = None if failure is None else f"{type(failure).__name__}: {failure}"
            dist.all_gather_object(answers, (said, given))
        except RuntimeError as error:
            raise failure or FileError(
                f"{shown(self._target)}: another process has ended, or takes longer than the "
                f"timeout of its group ({first_line(error)}); the file holds the old model or the "
                "new one; start the processes again"
            ) from error
        if failure is not None:
            raise failure
        for rank, (said, _) in enumerate(answers):
            if said is not None:
                raise FileError(f"{shown(self._target)}: the save failed in rank {rank}: {said}")
        return [given for _, given in answers]
