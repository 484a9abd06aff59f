"""The node that torch reads of a symbolic number once its capture has ended."""

from __future__ import annotations

from typing import Any


class KnownNode:
    """The node of an ended number, with the methods that torch calls on symbolic nodes."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def is_int(self) -> bool:
        """Return whether the number is an int."""
        return isinstance(self._value, int)

    def is_float(self) -> bool:
        """Return whether the number is a float."""
        return isinstance(self._value, float)

    def is_bool(self) -> bool:
        """Return False."""
        return False

    def is_symbolic(self) -> bool:
        """Return False: after the capture, the number is plain."""
        return False

    def guard_int(self, _file: str, _line: int) -> Any:
        """Return the number."""
        return self._value

    guard_float = guard_int

    def maybe_as_int(self) -> Any:
        """Return the number if it is an int."""
        return self._value if self.is_int() else None
