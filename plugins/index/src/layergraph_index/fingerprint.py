"""Fingerprints: digests of the structure of a model, and of each block in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial

from layergraph.errors import ArgumentError
from layergraph.gc_pause import gc_paused
from layergraph.ir import Implementation, Ir, Node, check
from layergraph.ir.bodies import owned
from layergraph.ir.graph import FUNCTION, INPUT, OUTPUT, STATE, Graph
from layergraph.ir.submodules import post_order
from layergraph.ir.tensor_spec import TensorSpec
from layergraph.ir.values import Body, Ref, Value
from layergraph_index.encoding import Leaf, group, number, text, value_bytes
from layergraph_index.hierarchy import Hierarchy, Member

VERSION = 1
"""The version of the encoding. Fingerprints of different versions differ."""


def fingerprint(ir: Ir, block: str | None = None, *, names: bool = False) -> str:
    """Return the fingerprint of a model, or of a block in it.

    Two models have the same fingerprint if they have the same structure: layers with their
    attributes, tensors with their shapes and dtypes, shared layers, and graphs with their guards.
    Weights, annotations, the mode, names of nodes, and the lines of code that guards name do not
    count. The execution order of nodes counts, because random numbers and in-place changes depend
    on it. So does the order of layers that the graph of their parent does not call.

    Args:
        ir: the model.
        block: the name of an implementation. None: the model.
        names: True to count the names of modules, of tensors of composites and of inputs.

    Returns:
        The 64 hexadecimal digits of a SHA-256 digest. It is the same on all machines.

    Raises:
        ArgumentError: the IR has no such block.
        InvalidIrError: the IR breaks a rule.

    Example:
        >>> import torch, layergraph as lg
        >>> one = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()))
        >>> other = lg.to_ir(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Tanh()))
        >>> lg.fingerprint(one) == lg.fingerprint(one.copy())
        True
        >>> lg.fingerprint(one) == lg.fingerprint(other)
        False
        >>> lg.fingerprint(one, "0") == lg.fingerprint(other, "0")
        True
    """
    if not isinstance(ir, Ir):
        raise ArgumentError(
            f"a {type(ir).__name__} stands where the Ir belongs: fingerprint(ir); "
            "layergraph.to_ir(model) gives one"
        )
    check(ir)
    found = fingerprints(ir, names=names)
    name = ir.root if block is None else block
    if name not in found:
        raise ArgumentError(f"the IR has no block {name!r}; give the name of an implementation")
    return found[name]


@gc_paused()
def fingerprints(ir: Ir, *, names: bool = False) -> dict[str, str]:
    """Return the fingerprint of each implementation of a checked IR, by name.

    Args:
        ir: the model; :func:`layergraph.ir.check` accepts it.
        names: as for :func:`fingerprint`.

    Example:
        >>> import torch, layergraph as lg
        >>> from layergraph_index import fingerprints
        >>> ir = lg.to_ir(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ReLU()))
        >>> found = fingerprints(ir)
        >>> found["0"] == found["1"] != found["root"]
        True
    """
    hierarchy = Hierarchy(ir)
    encoder = _Encoder(ir, hierarchy, names=names)
    digests: dict[str, bytes] = {}
    for name in post_order(ir):
        content = encoder.member(hierarchy.members[name], digests)
        digests[name] = hashlib.sha256(content).digest()
    return {name: digests[name].hex() for name in hierarchy.members}


class _Encoder:
    """Encodes implementations as bytes.

    Args:
        ir: the model.
        hierarchy: the order of its implementations.
        names: whether names of modules count.
    """

    def __init__(self, ir: Ir, hierarchy: Hierarchy, *, names: bool) -> None:
        self._ir = ir
        self._hierarchy = hierarchy
        self._names = names
        self._bodies = owned(ir)

    def member(self, member: Member, digests: Mapping[str, bytes]) -> bytes:
        """Return the bytes of an implementation, with digests in place of its children."""
        each = member.implementation
        bodies = self._bodies.get(each.name, [])
        graph = partial(self._graph, member, {name: n for n, name in enumerate(bodies)})
        children = [
            (text(b"n", name) if self._names else b"") + digests[target]
            for name, target in member.children.items()
        ]
        shared = [number(b"#", part) for pair in member.shared for part in pair]
        attributes = each.attributes
        return b"".join(
            [
                b"layergraph %d;" % VERSION,
                text(b"t", each.type),
                group(b"A", [_named(name, attributes[name]) for name in sorted(attributes)]),
                group(b"W", [self._tensor(member, *item) for item in each.tensors.items()]),
                b"L" if each.children is None else group(b"C", children),
                group(b"S", shared),
                group(b"K", [self._kept_mode(member, *item) for item in each.kept_modes.items()]),
                group(b"G", [graph(one) for one in each.graphs]),
                group(b"B", [graph(one) for name in bodies for one in self._ir[name].graphs]),
            ]
        )

    def _kept_mode(self, member: Member, path: str, mode: bool | None) -> bytes:
        key = f"{path}." if path else ""
        place = self._place(member, *self._hierarchy.owner(key, member.implementation.name))
        return place + value_bytes(mode, _no_reference)

    # --- tensors ---

    def _tensor(self, member: Member, name: str, spec: TensorSpec) -> bytes:
        said = spec.said()
        tied = said.pop("tied", None)
        facts = [_named(key, said[key]) for key in sorted(said)]
        is_of_code = member.implementation.children is not None and not self._names
        title = b"" if is_of_code else text(b"n", name)
        return title + group(b"E", facts) + (b"" if tied is None else self._state(member, tied))

    def _state(self, member: Member, key: str) -> bytes:
        return self._place(member, *self._hierarchy.owner(key))

    def _place(self, member: Member, owner: Member, tensor: str) -> bytes:
        away = number(b"@", owner.number - member.number)
        own = None
        if not self._names and owner.implementation.children is not None:
            own = self._hierarchy.number_of(owner, tensor)
        return away + (text(b"n", tensor) if own is None else number(b"#", own))

    # --- graphs ---

    def _graph(self, member: Member, bodies: Mapping[str, int], graph: Graph) -> bytes:
        places: dict[str, int] = {}
        arguments = graph.arguments()

        def refer(value: Ref | Body) -> bytes:
            if isinstance(value, Ref):
                return number(b"r", places[value.node])
            return number(b"b", bodies[value.implementation])

        nodes = []
        parameters = graph.parameters() if self._names else {}
        for node in graph.in_execution_order():
            args = _counted(node, arguments[node.name])
            places[node.name] = len(places)
            nodes += [
                self._target(member, node, parameters),
                value_bytes(args, refer),
                group(b"D", self._by_name(node, refer)),
                value_bytes(node.when, refer),
            ]
        return group(b"g", nodes)

    def _target(self, member: Member, node: Node, parameters: Mapping[str, str]) -> bytes:
        if node.type == INPUT:
            return b"I" + text(b"n", parameters.get(node.name, ""))
        if node.type == OUTPUT:
            return b"O"
        if node.type == FUNCTION:
            return text(b"f", str(node.implementation))
        if node.type == STATE:
            return b"s" + self._state(member, node.implementation)
        place = member.places.get(node.implementation)
        if place is not None:
            return number(b"c", place)
        called = self._hierarchy.members[node.implementation]
        return number(b"d", called.number - member.number)

    def _by_name(self, node: Node, refer: Leaf) -> list[bytes]:
        keys: Mapping[str, bytes] = {}
        if node.is_call and not self._names and node.kwargs:
            keys = _numbers_of_inputs(self._ir[node.implementation])
        return [
            keys.get(key, text(b"n", key)) + value_bytes(node.kwargs[key], refer)
            for key in sorted(node.kwargs)
        ]


def _named(name: str, value: Value) -> bytes:
    return text(b"n", name) + value_bytes(value, _no_reference)


def _counted(node: Node, args: tuple[Value, ...]) -> tuple[Value, ...]:
    """Return a node's arguments without a guard's line of code, names and messages."""
    if node.type != FUNCTION or not node.implementation.startswith(_GUARDS):
        return args
    if node.implementation == _HOLDS:
        return (*args[:1], *_without_texts(str(args[0]), args[1:])) if args else args
    return _without_texts(node.implementation.removeprefix("layergraph."), args)


def _without_texts(guard: str, args: tuple[Value, ...]) -> tuple[Value, ...]:
    texts = _TEXTS.get(guard, ())
    return tuple([each for n, each in enumerate(args) if n not in texts])


_HOLDS = "layergraph.holds"
_GUARDS = ("layergraph.assume", _HOLDS)
# For each guard, the positions of the arguments that it uses only in its error message.
_TEXTS = {
    "assume": (2,),
    "assume_container": (3,),
    "assume_device": (3,),
    "assume_distinct": (1,),
    "assume_environment": (2,),
    "assume_length": (2,),
    "assume_named": (3,),
    "assume_tensor": (1,),
    "assume_truth": (2, 3),
}


def _numbers_of_inputs(implementation: Implementation) -> dict[str, bytes]:
    """Return the number of each input of a composite, by the name of the parameter."""
    parameters = implementation.parameters().values() if implementation.nodes else ()
    return {name: number(b"#", n) for n, name in enumerate(parameters)}


def _no_reference(value: Ref | Body) -> bytes:
    raise ArgumentError(f"an attribute is {value!r}; only arguments may be that; check the IR")
