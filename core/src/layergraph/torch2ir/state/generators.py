"""The random number generators of Python and numpy during a run."""

from __future__ import annotations

import ctypes
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from layergraph.errors import CaptureError
from layergraph.undo import undoing


def foreign_generators() -> tuple[Any, ...]:
    """Return the states of the random number generators of Python and numpy."""
    numpy = sys.modules.get("numpy")
    return random.getstate(), None if numpy is None else _state_of_numpy(numpy.random)


_last: list[tuple[bytes, tuple[Any, ...]]] = []


def _state_of_numpy(random: Any) -> tuple[Any, ...]:
    # numpy's get_state is slow, so we read the memory of the state. The cached number for the next
    # normal draw is not in that memory.
    generator = random.mtrand._rand._bit_generator
    memory = b""
    if type(generator) is random.MT19937:
        memory = ctypes.string_at(generator.ctypes.state_address, _SIZE)
        if _last and _last[0][0] == memory and not _last[0][1][_KEEPS_ONE]:
            return _last[0][1]
    kind, keys, *rest = random.get_state()
    state = kind, keys.tobytes(), *rest
    _last[:] = [(memory, state)]
    return state


# Words of 32 bits: 624 keys and the position.
_SIZE = 4 * (624 + 1)
_KEEPS_ONE = 3


@contextmanager
def without_draws(before: tuple[Any, ...] | None = None) -> Iterator[None]:
    """Restore the states of the random number generators of Python and numpy.

    Args:
        before: their states; None to read them on entry.

    Raises:
        CaptureError: the model drew numbers from them.
    """
    before = before or foreign_generators()
    drawn = False

    def put_back() -> None:
        nonlocal drawn
        if foreign_generators() != before:
            drawn = True
            _put_back_foreign(before)

    with undoing(put_back):
        yield
    if drawn:
        raise CaptureError(
            "the model draws random numbers from Python or numpy: a graph would have the same "
            "ones each time; draw them from torch"
        )


def _put_back_foreign(states: tuple[Any, ...]) -> None:
    own, foreign = states
    random.setstate(own)
    if foreign is not None:
        numpy = sys.modules["numpy"]
        kind, keys, *rest = foreign
        numpy.random.set_state((kind, numpy.frombuffer(keys, dtype="uint32"), *rest))
