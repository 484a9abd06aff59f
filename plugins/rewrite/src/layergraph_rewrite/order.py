"""An execution order of nodes with insertion and removal in constant time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# New neighbours halve the gap between two labels, so that so many fit in one place before all
# nodes get new labels.
_GAP = 1 << 512


class Order:
    """An ordered list of names with constant-time insertion before or after another name.

    Each name has a label, a number that grows along the row, so that two names can be compared.

    Args:
        names: the first names.

    Example:
        >>> from layergraph_rewrite.order import Order
        >>> row = Order(["a", "c"])
        >>> row.insert("b", before="c")
        >>> list(row), row.is_before("b", "c")
        (['a', 'b', 'c'], True)
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._next: dict[str | None, str | None] = {None: None}
        self._last: dict[str | None, str | None] = {None: None}
        self._labels: dict[str, int] = {}
        for name in names:
            self.insert(name)

    def __iter__(self) -> Iterator[str]:
        name = self._next[None]
        while name is not None:
            following = self._next[name]  # the caller may remove the name
            yield name
            name = following

    def __contains__(self, name: object) -> bool:
        return name in self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def insert(self, name: str, *, before: str | None = None) -> None:
        """Put a new name before another; None: at the end."""
        last = self._last[before]
        self._next[last], self._last[name] = name, last
        self._next[name], self._last[before] = before, name
        low = 0 if last is None else self._labels[last]
        high = low + 2 * _GAP if before is None else self._labels[before]
        self._labels[name] = (low + high) // 2
        if high - low < 2:
            self._relabel()

    def remove(self, name: str) -> None:
        """Remove a name."""
        last, following = self._last.pop(name), self._next.pop(name)
        self._next[last], self._last[following] = following, last
        del self._labels[name]

    def after(self, name: str) -> str | None:
        """Return the name that follows; None at the end."""
        return self._next[name]

    def is_before(self, one: str, other: str) -> bool:
        """Return whether one name stands before another."""
        return self._labels[one] < self._labels[other]

    def label(self, name: str) -> int:
        """Return a number that grows along the row, valid until the next insertion."""
        return self._labels[name]

    def between(self, first: str, last: str | None) -> Iterator[str]:
        """Yield the names after the first and before the last; None: all after the first."""
        if first == last:
            return
        name = self._next[first]
        while name is not None and name != last:
            yield name
            name = self._next[name]

    def _relabel(self) -> None:
        for index, name in enumerate(self, 1):
            self._labels[name] = index * _GAP
