"""Rewriting: rules, each a pattern and a replacement, applied until none matches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from layergraph.errors import ArgumentError
from layergraph.gc_pause import gc_paused
from layergraph.ir import Ir
from layergraph_rewrite import safety
from layergraph_rewrite.edit import Edit
from layergraph_rewrite.errors import EditError, Refused
from layergraph_rewrite.match import Match, Matcher, Miss
from layergraph_rewrite.pattern import Pattern
from layergraph_rewrite.report import Report
from layergraph_rewrite.sources import Tensors
from layergraph_rewrite.terms import Existing

if TYPE_CHECKING:
    import torch

    from layergraph_rewrite.working import WorkingGraph

Shared = Literal["refuse", "copy"]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A pattern, and the replacement of what it matches.

    Attributes:
        pattern: a function of the values that flow in, which returns a call of a layer or function.
        replacement: a function of the :class:`Match`. It returns the call that replaces the last
            one of the match, a :class:`Call` whose value or a plain value that is read instead, or
            None if it made edits with ``match.edit``. It raises :class:`Refused` if it cannot; then
            it made no edit.
        name: the name for reports; None: that of the replacement.
        shared: the treatment of a layer with tensors that a node outside of the match calls too:
            ``"refuse"`` the match, or ``"copy"`` the layer for the match.
        across: whether the match may go across the borders of composites, where one node calls
            them. The replacement then makes edits, or all its values are in one graph.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_rewrite import layer
        >>> to_gelu = lg.Rule(lambda x: layer("relu")(x), lambda match: layer("gelu")(match["x"]))
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
        >>> ir, state, report = lg.rewrite(lg.to_ir(model), [to_gelu], model.state_dict())
        >>> lg.to_torch(ir, state)[1]
        GELU(approximate='none')
    """

    pattern: Callable[..., Any]
    replacement: Callable[[Match], Any]
    name: str | None = None
    shared: Shared = "refuse"
    across: bool = False

    @property
    def title(self) -> str:
        """The name for reports."""
        return self.name or getattr(self.replacement, "__name__", "rule").replace("_", "-")


def rule(
    pattern: Callable[..., Any],
    *,
    name: str | None = None,
    shared: Shared = "refuse",
    across: bool = False,
) -> Callable[[Callable[[Match], Any]], Rule]:
    """Make a rule of a pattern and the decorated replacement: see :class:`Rule`.

    Example:
        >>> import layergraph as lg
        >>> from layergraph_rewrite import layer
        >>> @lg.rule(lambda x: layer("relu")(x))
        ... def relu_to_gelu(match):
        ...     return layer("gelu")(match["x"])
        >>> relu_to_gelu.title
        'relu-to-gelu'
    """
    return lambda replacement: Rule(pattern, replacement, name, shared, across)


def rewrite(
    ir: Ir, rules: Iterable[Rule] | Rule, state: Mapping[str, torch.Tensor] | None = None
) -> tuple[Ir, Tensors | None, Report]:
    """Apply rules until none matches.

    The nodes are visited in execution order, and at each node the rules in their order. After a
    replacement, the nodes that it may concern are visited again. A match is refused, with the
    reason in the report, if a node between its calls changes a tensor in place, draws random
    numbers as they do, or begins or ends a region; if its calls have different conditions; or if
    the graphs for training and evaluation differ in it.

    Args:
        ir: the IR, which stays as it is.
        rules: the rules.
        state: the state dict of the IR.

    Returns:
        The new IR; the new state dict, whose tensors are read when they are asked for (None without
        ``state``); and the report of all changes and of the places that almost matched.

    Raises:
        InvalidIrError: the IR breaks a rule, or a replacement made one that does.
        EditError: a replacement cannot be made, or a rule does not end.
        ArgumentError: a pattern is no pattern.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_rewrite import function, layer
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.relu(x)
        >>> to_layer = lg.Rule(
        ...     lambda x: function("torch.relu")(x), lambda match: layer("relu")(match["x"])
        ... )
        >>> ir, _, report = lg.rewrite(lg.to_ir(Net()), to_layer)
        >>> [node.type for node in ir["root"].nodes.values()], len(report.applied)
        (['input', 'relu', 'output'], 1)
    """
    edit = Edit(ir, state)
    apply_rules(edit, [rules] if isinstance(rules, Rule) else rules)
    return edit.ir, edit.state, edit.report


@gc_paused()
def apply_rules(edit: Edit, rules: Iterable[Rule]) -> None:
    """Apply rules to an edit until none matches: see :func:`rewrite`. Passes use it.

    Raises:
        EditError, ArgumentError: as for :func:`rewrite`.
    """
    _Rewriting(edit, list(rules)).run()


def find_matches(
    ir: Ir | Edit, pattern: Callable[..., Any], *, across: bool = False
) -> list[Match]:
    """Return all matches of a pattern, in execution order of their last calls. They may overlap.

    Args:
        ir: the IR, or an edit.
        pattern: a function, as for :class:`Rule`.
        across: whether matches may go across the borders of composites.

    Raises:
        InvalidIrError: the IR breaks a rule.
        ArgumentError: the pattern is no pattern.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_rewrite import layer
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> lg.find_matches(ir, lambda x: layer("relu")(x))
        [Match(root:_1)]
    """
    edit = ir if isinstance(ir, Edit) else Edit(ir)
    matcher = Matcher(edit, Pattern(pattern), across=across)
    found: dict[Any, Match] = {}
    for graph in edit.working_graphs():
        for node in list(graph):
            match = matcher.at(graph, node.name)
            if isinstance(match, Match):
                found.setdefault(match.root.site, match)
    return list(found.values())


class _Rewriting:
    def __init__(self, edit: Edit, rules: list[Rule]) -> None:
        for each in rules:
            if not isinstance(each, Rule):
                raise ArgumentError(f"{each!r:.60} is no rule; give lg.Rule(pattern, replacement)")
        patterns = [Pattern(each.pattern) for each in rules]
        self._edit = edit
        self._rules = [
            (each, Matcher(edit, pattern, across=each.across))
            for each, pattern in zip(rules, patterns, strict=True)
        ]
        self._depth = max((each.depth for each in patterns), default=0)
        self._across = any(each.across for each in rules)
        self._queue: deque[tuple[WorkingGraph, str]] = deque()
        self._waiting: set[tuple[int, str]] = set()
        self._done: set[tuple[int, int]] = set()
        self._kept: list[Any] = []  # what has an id in _done stays
        self._misses: dict[tuple[str, Any], str] = {}
        self._counts = [0] * len(rules)
        self._most = 0

    def run(self) -> None:
        for graph in self._edit.working_graphs():
            for node in graph:
                self._enqueue(graph, node.name)
        self._most = 1000 + 10 * len(self._queue)
        while self._queue:
            graph, name = self._queue.popleft()
            self._waiting.discard((id(graph), name))
            if name in graph:
                self._visit(graph, name)
        for (title, site), reason in self._misses.items():
            with self._edit.report.by(title):
                self._edit.report.refuse(site, reason)

    def _enqueue(self, graph: WorkingGraph, name: str) -> None:
        key = id(graph), name
        if key not in self._waiting:
            self._waiting.add(key)
            self._queue.append((graph, name))

    def _visit(self, graph: WorkingGraph, name: str) -> None:
        node = graph.nodes[name]
        for index, (each, matcher) in enumerate(self._rules):
            if (index, id(node)) in self._done:
                continue
            match = matcher.at(graph, name)
            if match is None:
                continue
            key = each.title, (match if isinstance(match, Miss) else match.root).site
            if isinstance(match, Miss):
                self._misses[key] = match.reason
                continue
            reason = self._try(index, each, matcher, match)
            if reason is None:
                self._misses.pop(key, None)
                return
            self._misses[key] = reason

    def _try(self, index: int, each: Rule, matcher: Matcher, match: Match) -> str | None:
        """Apply a rule to a match; return the reason if that is refused."""
        reason = safety.problem(self._edit, match, matcher, shared=each.shared)
        if reason is not None:
            return reason
        around = list(self._around(match))
        node = match.root.node
        sites = [call.site for call in match.calls]
        try:
            if each.shared == "copy":
                safety.unshare(self._edit, match)
            result = each.replacement(match)
        except Refused as error:
            return str(error)
        self._counts[index] += 1
        if self._counts[index] > self._most:
            raise EditError(
                f"the rule {each.title!r} does not end: it was applied {self._most} times; let its "
                "pattern not match what it makes"
            )
        with self._edit.report.by(each.title):
            self._edit.report.add(sites[0], _described(sites, result))
        if result is None:
            self._done.add((index, id(node)))
            self._kept.append(node)
        else:
            self._edit.replace_match(match, result)
        for where, name in around:
            self._follow(where, name)
        return None

    def _around(self, match: Match) -> Iterator[tuple[WorkingGraph, str]]:
        """Yield the nodes that a match reads, and its calls: what they feed may match now."""
        for call in match.calls:
            graph, name = call.spot
            for source in graph.nodes[name].sources():
                yield graph, source
            yield graph, name

    def _follow(self, graph: WorkingGraph, name: str) -> None:
        """Visit again what a node feeds, as far as a pattern reaches."""
        level = [(graph, name)]
        for _ in range(self._depth + 1):
            following = []
            for here, each in level:
                if each not in here:
                    continue
                self._enqueue(here, each)
                following += [(here, user) for user in here.users[each]]
                if self._across:
                    following += list(here.owner.calls)
            level = following


def _described(sites: list[Any], result: Any) -> str:
    nodes = ", ".join(site.node for site in sites)
    if result is None:
        return f"edited {nodes}"
    operation = getattr(result, "operation", None)
    if operation is None:
        return f"removed {nodes}"
    if isinstance(operation, Existing):
        return f"replaced {nodes} by a call of {operation.call.site.node}"
    return f"replaced {nodes} by {(getattr(operation, 'types', None) or operation.names)[0]}"
