"""Rewriting: rules, each a pattern and a replacement, applied until none matches."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from layergraph.errors import ArgumentError, LayergraphError, first_line
from layergraph.gc_pause import gc_paused
from layergraph.ir import Ir
from layergraph.ir.values import ATOMS, parts
from layergraph_rewrite import safety
from layergraph_rewrite.calls import Call, Site
from layergraph_rewrite.edit import Edit
from layergraph_rewrite.errors import EditError, Refused
from layergraph_rewrite.match import Match, Matcher, Spot
from layergraph_rewrite.pattern import Pattern
from layergraph_rewrite.report import Report
from layergraph_rewrite.sources import Tensors
from layergraph_rewrite.terms import Applied, Existing
from layergraph_rewrite.terms import Value as Wildcard

if TYPE_CHECKING:
    import torch

    from layergraph_rewrite.working import WorkingGraph, WorkingLayer

Shared = Literal["refuse", "copy"]


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A pattern and its replacement.

    Attributes:
        pattern: a function of wildcard values that returns a call of a layer or function.
        replacement: a function of the :class:`Match`. It returns the call that replaces the last
            call of the match; or a :class:`Call` or a plain value for the readers of that call; or
            None if it made edits with ``match.edit``. It raises :class:`Refused`, before any edit,
            if it does not apply.
        name: the name for reports; None: that of the replacement.
        shared: the treatment of a layer with tensors that a node outside the match also calls:
            ``"refuse"`` the match, or ``"copy"`` the layer.
        across: whether the match may extend into and out of composites that one node calls. Then
            the replacement makes edits, or all its values are in one graph.

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

    The search visits the nodes in execution order, and tries the rules in order at each node. After
    a replacement, it visits the affected nodes again. It refuses a match, with the reason in the
    report, in these cases:

    - A node between its calls changes a value of the match in place, draws random numbers as the
      calls do, or begins or ends a region.
    - A call of the match changes a value in place that other nodes read.
    - A later in-place change would affect the new value differently from the old one.
    - The calls have different conditions, or the graphs for training and evaluation differ in the
      match.

    Refused matches are tried again after other changes.

    Args:
        ir: the IR, which stays as it is.
        rules: the rules.
        state: the state dict of the IR.

    Returns:
        The new IR; the new state dict, whose tensors are read when they are asked for (None without
        ``state``); and the report of all changes and of the places that almost matched.

    Raises:
        InvalidIrError: the IR, or the result of a replacement, breaks a rule.
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


@gc_paused()
def find_matches(
    ir: Ir | Edit, pattern: Callable[..., Any], *, across: bool = False
) -> list[Match]:
    """Return all matches of a pattern, in execution order of their last calls. They may overlap.

    Args:
        ir: the IR, or an edit.
        pattern: a function, as for :class:`Rule`.
        across: whether matches may extend into and out of composites.

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
    found: dict[tuple[WorkingLayer, str], Match] = {}  # once for the graphs of both modes
    for graph in edit.working_graphs():
        for node in graph:
            match = matcher.at(graph, node.name)
            if isinstance(match, Match):
                found.setdefault((graph.owner, node.name), match)
    return list(found.values())


class _Rewriting:
    def __init__(self, edit: Edit, rules: list[Rule]) -> None:
        for each in rules:
            _check_rule(each)
        patterns = [Pattern(each.pattern) for each in rules]
        self._edit = edit
        self._rules = [
            (each, Matcher(edit, pattern, across=each.across))
            for each, pattern in zip(rules, patterns, strict=True)
        ]
        self._depth = max((each.depth for each in patterns), default=0)
        self._across = any(each.across for each in rules)
        self._queue: deque[Spot] = deque()
        self._waiting: set[Spot] = set()
        self._edited: set[tuple[int, ...]] = set()
        self._kept: list[Any] = []  # keeps objects alive whose ids are in _edited
        self._misses: dict[Spot, dict[int, tuple[Site, str]]] = {}
        self._counts = [0] * len(rules)
        self._most = 0

    def run(self) -> None:
        self._edit.layers.changed = {}
        try:
            self._run()
        finally:
            self._edit.layers.changed = None

    def _run(self) -> None:
        for graph in self._edit.working_graphs():
            self._queue += [(graph, node.name) for node in graph]
        self._waiting = set(self._queue)
        self._most = 1000 + 10 * len(self._queue)
        applied = -1
        while applied < sum(self._counts):
            # Other changes may make refused matches possible.
            applied = sum(self._counts)
            for spot in self._misses:
                self._enqueue(spot)
            while self._queue:
                spot = self._queue.popleft()
                self._waiting.discard(spot)
                if self._is_there(spot):
                    self._visit(*spot)
        for spot, reasons in self._misses.items():
            for index, (site, reason) in reasons.items():
                if self._is_there(spot):
                    with self._edit.report.by(self._rules[index][0].title):
                        self._edit.report.refuse(site, reason)

    def _is_there(self, spot: Spot) -> bool:
        graph, name = spot
        return name in graph and self._edit.layers.get(graph.owner.name) is graph.owner

    def _enqueue(self, spot: Spot) -> None:
        if spot not in self._waiting:
            self._waiting.add(spot)
            self._queue.append(spot)

    def _visit(self, graph: WorkingGraph, name: str) -> None:
        reasons = self._misses.pop((graph, name), {})
        reasons.clear()
        for index, (each, matcher) in enumerate(self._rules):
            match = matcher.at(graph, name)
            if isinstance(match, Match):
                if self._was_edited(index, match):
                    continue
                site = match.root.site
                reason = self._try(index, each, matcher, match)
                if reason is None:
                    return
                reasons[index] = site, reason
            elif match is not None:
                reasons[index] = match.site, match.reason
        if reasons:
            self._misses[graph, name] = reasons

    def _was_edited(self, index: int, match: Match) -> bool:
        """Return whether a rule has made edits for these nodes, and none has changed since."""
        return bool(self._edited) and (index, *(id(each.node) for each in match.calls)) in (
            self._edited
        )

    def _try(self, index: int, each: Rule, matcher: Matcher, match: Match) -> str | None:
        """Apply a rule to a match; return the reason if that is refused."""
        reason = safety.problem(self._edit, match, matcher, shared=each.shared)
        if reason is not None:
            return reason
        sites = [call.site for call in match.calls]
        copied = safety.unshare(self._edit, match) if each.shared == "copy" else []
        if copied:
            match = match.refreshed()
        try:
            result = each.replacement(match)
            reason = safety.result_problem(self._edit, match, result)
        except Refused as error:
            reason = str(error) or "the replacement refuses it"
        except Exception as error:
            raise _failed(each, sites[0], error) from error
        if reason is not None:
            for (graph, name), layer in copied:
                self._edit.reshare(Site(graph.owner.name, name), layer)
            return reason
        self._counts[index] += 1
        if self._counts[index] > self._most:
            raise EditError(
                f"the rule {each.title!r} does not end: it was applied {self._most} times; let its "
                "pattern not match what it makes"
            )
        with self._edit.report.by(each.title):
            self._edit.report.add(sites[0], _described(sites, result))
        if result is None:
            self._note_edited(index, match)
        else:
            try:
                _check_result(match, result)
                self._edit.replace_match(match, result)
            except LayergraphError as error:
                raise _failed(each, sites[0], error) from error
        self._follow(match)
        return None

    def _note_edited(self, index: int, match: Match) -> None:
        nodes = [graph.nodes.get(name) for graph, name in (call.spot for call in match.calls)]
        self._kept.append(nodes)
        self._edited.add((index, *map(id, nodes)))

    def _follow(self, match: Match) -> None:
        """Schedule the changed nodes, and the nodes that they feed within the patterns' depth."""
        layers = self._edit.layers
        level = [call.spot for call in match.calls] + [*(layers.changed or ())]
        layers.changed = {}
        for _ in range(self._depth + 1):
            following: list[Spot] = []
            for graph, name in dict.fromkeys(level):
                if name not in graph:
                    continue
                self._enqueue((graph, name))
                following += [(graph, user) for user in graph.users[name]]
                if self._across:
                    following += graph.owner.calls
            level = following


def _failed(each: Rule, site: Site, error: Exception) -> EditError:
    kind = "" if isinstance(error, LayergraphError) else f"{type(error).__name__}: "
    return EditError(f"the rule {each.title!r} fails at {site}: {kind}{first_line(error)}")


def _check_rule(each: Any) -> None:
    if not isinstance(each, Rule):
        raise ArgumentError(f"{each!r:.60} is no rule; give lg.Rule(pattern, replacement)")
    if each.shared not in ("refuse", "copy"):
        raise ArgumentError(f'shared={each.shared!r:.60} of a rule is neither "refuse" nor "copy"')
    if not callable(each.replacement):
        raise ArgumentError(f"{each.replacement!r:.60} is no function of a match")


def _check_result(match: Match, result: Any) -> None:
    """Refuse a replacement that reads a replaced or a later node."""
    graph, name = match.root.spot
    for call in _calls_in(result):
        if not isinstance(call, Call):
            raise EditError(
                f"it makes {call!r:.60}, which is no value of an IR; return a call such as "
                'layer("relu")(match["x"])'
            )
        other, source = call.spot
        if other.owner is not graph.owner:
            raise EditError(f"it reads {call.site}, which is in another graph")
        if source == name:
            raise EditError(f"it reads {call.site}, which it replaces; use match.edit instead")
        for each in graph.owner.graphs_with(name):
            if source not in each or not each.order.is_before(source, name):
                raise EditError(f"it reads {call.site}, which does not run before {name!r}")


def _calls_in(value: Any) -> Iterator[Any]:
    """Yield the nodes that a replacement reads, and invalid values in it."""
    stack = [value]
    while stack:
        each = stack.pop()
        if isinstance(each, Applied):
            stack += [*each.args, *each.kwargs.values()]
        elif (inner := parts(each)) is not None:
            stack += inner
        elif type(each) not in ATOMS and not isinstance(each, Wildcard | Site):
            yield each


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
