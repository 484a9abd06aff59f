"""Selection of nodes by type, path, attributes, a condition, or their relation to others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self, overload

from layergraph.ir import INPUT, OUTPUT
from layergraph_rewrite import flow
from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.conditions import AttributeTest, attribute_tests, parsed
from layergraph_rewrite.errors import EditError

if TYPE_CHECKING:
    from layergraph.ir import Ir
    from layergraph_rewrite.edit import Edit

Target = "Call | Site | str | Selection"


class Selection(Sequence[Call]):
    """Nodes of an IR, in execution order. A composite's own nodes follow the call of it.

    A selection is a list of :class:`Call`, and can be narrowed down. ``|``, ``&`` and ``-`` combine
    two of them.

    Example:
        >>> import torch, layergraph as lg
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 3)))
        >>> [call.layer for call in ir.select("linear[in_features>2]")]
        ['1']
        >>> [call.layer for call in ir.select("linear").before("1")]
        ['0']
    """

    def __init__(self, edit: Edit, calls: Iterable[Call]) -> None:
        self._edit = edit
        self._calls = list(calls)

    @overload
    def __getitem__(self, index: int) -> Call: ...

    @overload
    def __getitem__(self, index: slice) -> Selection: ...

    def __getitem__(self, index: int | slice) -> Call | Selection:
        if isinstance(index, slice):
            return self._with(self._calls[index])
        return self._calls[index]

    def __iter__(self) -> Iterator[Call]:
        return iter(self._calls)

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        return f"Selection({', '.join(str(call.site) for call in self)})"

    def __or__(self, other: Selection) -> Self:
        sites = {call.site for call in (*self, *other)}
        return self._with(call for call in self._edit if call.site in sites)

    def __and__(self, other: Selection) -> Self:
        sites = {call.site for call in other}
        return self._with(call for call in self if call.site in sites)

    def __sub__(self, other: Selection) -> Self:
        sites = {call.site for call in other}
        return self._with(call for call in self if call.site not in sites)

    def _with(self, calls: Iterable[Call]) -> Self:
        return type(self)(self._edit, calls)

    def select(self, text: str = "", **options: Any) -> Self:
        """Return the nodes that match: see :meth:`layergraph.Ir.select`."""
        return self._with(filter(matcher(text, **options), self))

    def where(self, condition: Callable[[Call], bool]) -> Self:
        """Return the nodes for which a condition is true."""
        return self._with(filter(condition, self))

    @property
    def layers(self) -> list[str]:
        """The names of the layers that these nodes call, each once."""
        return list(dict.fromkeys(call.layer for call in self if call.layer is not None))

    def inside(self, composite: str) -> Self:
        """Return the nodes in the graph of a composite, or of a composite inside it.

        Raises:
            EditError: there is no such composite.
        """
        graphs = self._edit.names_inside(composite)
        return self._with(call for call in self if call.site.graph in graphs)

    def before(self, target: Any) -> Self:
        """Return the nodes that end before the first node of the target begins."""
        spans = self._spans()
        first = min(spans[site][0] for site in self._sites(target))
        return self._with(call for call in self if spans[call.site][1] < first)

    def after(self, target: Any) -> Self:
        """Return the nodes that begin after all nodes of the target have ended."""
        spans = self._spans()
        last = max(spans[site][1] for site in self._sites(target))
        return self._with(call for call in self if spans[call.site][0] > last)

    def between(self, start: Any, end: Any) -> Self:
        """Return the nodes that run after ``start`` and before ``end``."""
        return self.after(start).before(end)

    def feeding(self, target: Any, *, direct: bool = False) -> Self:
        """Return the nodes whose values reach the target, as arguments or through other nodes.

        Args:
            target: the other nodes.
            direct: whether only arguments count.
        """
        sites = flow.reaching(self._edit, self._sites(target), direct=direct)
        return self._with(call for call in self if call.site in sites)

    def fed_by(self, target: Any, *, direct: bool = False) -> Self:
        """Return the nodes that the target's values reach, as arguments or through other nodes.

        Args:
            target: the other nodes.
            direct: whether only arguments count.
        """
        sites = flow.reached(self._edit, self._sites(target), direct=direct)
        return self._with(call for call in self if call.site in sites)

    def _sites(self, target: Any) -> list[Site]:
        if isinstance(target, Selection):
            found = [call.site for call in target]
        else:
            found = [self._edit.call(target).site]
        if not found:
            raise EditError("the other selection is empty, so that it has no place")
        return found

    def _spans(self) -> dict[Site, tuple[int, int]]:
        """Return begin and end of each call. A composite ends with what is in it."""
        begins = {call.site: index for index, call in enumerate(self._edit)}
        ends: dict[str, int] = {}  # by graph
        for site, begin in begins.items():
            ends[site.graph] = begin
        spans: dict[Site, tuple[int, int]] = {}
        for call in self._edit:
            run = [name for name in (call.layer, *call.node.bodies()) if name is not None]
            graphs = {each for name in run for each in self._edit.names_inside(name)}
            begin = begins[call.site]
            spans[call.site] = begin, max([begin, *(ends[each] for each in graphs & ends.keys())])
        return spans


def select(edit: Edit, text: str = "", **options: Any) -> Selection:
    """Return the nodes of an edit that match: see :meth:`layergraph.Ir.select`."""
    matches = matcher(text, **options)
    return Selection(edit, filter(matches, edit))


def select_in(ir: Ir, text: str = "", **options: Any) -> Selection:
    """Return the nodes of an IR that match: see :meth:`layergraph.Ir.select`."""
    from layergraph_rewrite.edit import Edit

    return select(Edit(ir), text, **options)


def matcher(
    text: str = "",
    *,
    type: str | None = None,  # noqa: A002 the word of the IR
    path: str | None = None,
    function: str | None = None,
    where: Callable[[Call], bool] | None = None,
    **attributes: Any,
) -> Callable[[Call], bool]:
    """Return the condition of a selection: see :meth:`layergraph.Ir.select`."""
    word = ""
    tests: list[AttributeTest] = []
    if text:
        path_of_text, word, tests = parsed(text)
        path = path or path_of_text or None
    tests = [*tests, *attribute_tests(attributes)]

    def matches(call: Call) -> bool:
        return (
            (not word or _has_word(call, word, is_type=bool(path or tests)))
            and (type is None or (call.layer is not None and fnmatchcase(call.type, type)))
            and (path is None or fnmatchcase(path_of(call), path))
            and (function is None or fnmatchcase(call.function or "", function))
            and _passes(call, tests)
            and (where is None or where(call))
        )

    return matches


def path_of(call: Call) -> str:
    """Return the path of a node for selections: that of its layer, or its own."""
    if call.layer is not None:
        return call.layer
    graph = call.site.graph
    return call.site.node if call.is_in_root else f"{graph}.{call.site.node}"


def _has_word(call: Call, word: str, *, is_type: bool) -> bool:
    names = [call.type if call.function is None else call.function]
    if not is_type and call.type not in (INPUT, OUTPUT):
        names.append(path_of(call))
    return any(fnmatchcase(name, word) for name in names)


def _passes(call: Call, tests: Sequence[AttributeTest]) -> bool:
    if not tests:
        return True
    return all(_holds(call, test) for test in tests)


def _holds(call: Call, test: AttributeTest) -> bool:
    """Return whether an attribute of a layer, or an argument by name of a function, passes."""
    if call.layer is None and test.name in call.kwargs:
        return test.holds(call.kwargs[test.name])
    try:
        return test.holds(call[test.name])
    except KeyError:
        return False
