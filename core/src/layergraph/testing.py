"""What the author of a plugin subclasses to test its layers.

A test class lists cases; each check of each case is a test of its own::

    class TestLinear(LayerTests):
        classes = layers_of(torch.nn.modules.linear) - {nn.Identity}
        cases = {
            "default": Case(lambda: nn.Linear(3, 2), [(5, 3)]),
            "without bias": Case(lambda: nn.Linear(3, 2, bias=False), [(5, 3)]),
        }

pytest reports them as ``TestLinear::test_behaviour[without bias]``. A failed check raises
:class:`AssertionError`; pytest itself is not needed.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.utils import _pytree as pytree

from layergraph.convert import to_ir, to_torch
from layergraph.errors import CaptureError, LayergraphError
from layergraph.ir import Ir, find_problems
from layergraph.layers import signature_of


@dataclass(frozen=True, slots=True)
class Case:
    """One way of making a layer.

    Attributes:
        make: makes the layer, a new one at each call.
        inputs: the arguments of a call: sizes of float tensors, which are drawn anew for each run,
            and tensors, which are given as they are.
        kind: the type of the layer's implementation; None: the name of its class in lower case.
        kwargs: the arguments of a call by name, which are given as they are.
    """

    make: Callable[[], nn.Module]
    inputs: Sequence[torch.Tensor | tuple[int, ...]]
    kind: str | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class LayerTests:
    """Checks of a plugin's layers, to be subclassed.

    Every method named ``check_…`` becomes one test for each case; a subclass may add its own.

    Attributes:
        cases: the cases by name.
        classes: the classes that the plugin is for: each must have a case.
    """

    cases: ClassVar[Mapping[str, Case]] = {}
    classes: ClassVar[Collection[type[nn.Module]]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for check in [name for name in dir(cls) if name.startswith("check_")]:
            for name, case in cls.cases.items():
                setattr(cls, f"test_{check.removeprefix('check_')}[{name}]", _test(check, case))

    def test_every_class_has_a_case(self) -> None:
        """There are cases, and none of the classes was forgotten."""
        forgotten = set(self.classes) - {type(case.make()) for case in self.cases.values()}
        _expect(bool(self.cases), "there are no cases")
        _expect(not forgotten, f"no case for {sorted(cls.__name__ for cls in forgotten)}")

    def check_leaf(self, case: Case) -> None:
        """It is one leaf of its type with plain values, which comes back from a dict."""
        module = case.make()
        ir = to_ir(module)
        leaf = ir[ir.root]
        _expect(leaf.type == _kind(case, module), f"its type is {leaf.type!r}")
        _expect(len(ir) == 1 and not leaf.nodes and leaf.children is None, f"it is no leaf:\n{ir}")
        _expect(not find_problems(ir), f"it breaks rules: {find_problems(ir)}")
        _expect(Ir.from_dict(ir.to_dict()) == ir, f"its dict means something else: {ir.to_dict()}")

    def check_rebuilt(self, case: Case) -> None:
        """It comes back new, of the same class, with the same state."""
        for variant, change in _VARIANTS.items():
            module = change(_scrambled(case.make()))
            ir = to_ir(module)
            rebuilt = to_torch(ir, module.state_dict())
            for what, tell in _FEATURES.items():
                was, now = tell(module), tell(rebuilt)
                _expect(was == now, f"{variant}: its {what} was {was}, and is {now}")
        _expect(to_torch(ir) is not rebuilt, "it is no new module at each call")

    def check_behaviour(self, case: Case) -> None:
        """It comes back computing the same, bit for bit."""
        for variant in ("as made", "in float64"):
            _compare_runs(_VARIANTS[variant](_scrambled(case.make())), case, variant)

    def check_in_sequential(self, case: Case) -> None:
        """Inside a model it is the same layer, and comes back so."""
        model = nn.Sequential(_scrambled(case.make()))
        ir, alone = to_ir(model), to_ir(model[0])
        same = ir.get("0") == replace(alone[alone.root], name="0")
        _expect(same, f"alone it is\n{alone}\nbut in a Sequential\n{ir}")
        if len(case.inputs) == 1 and not case.kwargs:  # Sequential takes no more
            _compare_runs(model, case, "in a Sequential")

    def check_exact_class(self, case: Case) -> None:
        """What is almost the layer is not taken for it."""
        inherited, hooked = case.make(), case.make()
        kind, cls = _kind(case, inherited), type(inherited)
        inherited.__class__ = type(f"Own{cls.__name__}", (cls,), {})
        hooked.register_forward_hook(lambda *_: None)
        for what, module in {"a subclass": inherited, "one with a hook": hooked}.items():
            try:
                ir = to_ir(module)
            except CaptureError:  # it was traced through, which can need inputs
                continue
            _expect(ir[ir.root].type != kind, f"{what} was taken for the layer")

    def check_damaged(self, case: Case) -> None:
        """Without a required attribute, or with an unknown one, it is refused."""
        module = case.make()
        leaf = to_ir(module)["root"]
        damaged = {"with an unknown attribute": leaf.data | {"no_such_attribute": 0}}
        for name, parameter in signature_of(type(module)).parameters.items():
            if parameter.default is parameter.empty and name in leaf.data:
                damaged[f"without {name}"] = {k: v for k, v in leaf.data.items() if k != name}
        for what, data in damaged.items():
            try:
                built = to_torch(Ir([replace(leaf, data=data)]))
            except LayergraphError:
                continue
            raise AssertionError(f"{what}, it was built all the same: {built}")


def layers_of(module: ModuleType) -> set[type[nn.Module]]:
    """The layers that a Python module lists in ``__all__``.

    Lazy ones are left out: they are of another class once they have run.
    """
    listed = [getattr(module, name) for name in module.__all__]
    layers = [each for each in listed if inspect.isclass(each) and issubclass(each, nn.Module)]
    return {cls for cls in layers if not issubclass(cls, LazyModuleMixin)}


_VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "as made": lambda module: module,
    "in float64": lambda module: module.double(),
    "frozen": lambda module: module.requires_grad_(False),
    "in eval mode": lambda module: module.eval(),
}

_FEATURES: dict[str, Callable[[nn.Module], object]] = {
    "class": type,
    "repr": repr,
    "mode": lambda module: module.training,
    "state dict": lambda module: list(module.state_dict()),
    "parameters": lambda module: [
        (k, p.dtype, p.requires_grad) for k, p in module.named_parameters()
    ],
    "buffers": lambda module: [(k, b.dtype) for k, b in module.named_buffers()],
}


def _test(check: str, case: Case) -> Callable[[LayerTests], None]:
    return lambda self: getattr(self, check)(case)


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _kind(case: Case, module: nn.Module) -> str:
    return type(module).__name__.lower() if case.kind is None else case.kind


def _scrambled(module: nn.Module) -> nn.Module:
    # What a constructor makes anyway (ones, zeros) would come back even if it were not kept.
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor))
    return module


def _compare_runs(module: nn.Module, case: Case, what: str) -> None:
    rebuilt = to_torch(to_ir(module), module.state_dict())
    dtypes = {tensor.dtype for tensor in module.state_dict().values()}
    dtype = torch.float64 if torch.float64 in dtypes else torch.float32
    for mode, seed in itertools.product(("evaluating", "training"), (0, 1)):
        draw = torch.Generator().manual_seed(seed)
        inputs = [
            torch.randn(given, generator=draw, dtype=dtype) if isinstance(given, tuple) else given
            for given in case.inputs
        ]
        was, now = (
            _run(each.train(mode == "training"), inputs, case.kwargs) for each in (module, rebuilt)
        )
        _expect(was.keys() == now.keys(), f"{what}, {mode}: {list(was)} became {list(now)}")
        changed = [name for name in was if not _same(was[name], now[name])]
        _expect(not changed, f"{what}, {mode}: other bits in {', '.join(changed)}")


def _run(
    module: nn.Module, inputs: Sequence[torch.Tensor], kwargs: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """What a call gives and leaves behind, by name."""
    given = [tensor.clone().requires_grad_(tensor.is_floating_point()) for tensor in inputs]
    module.zero_grad()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        # Copies, because a layer may work in place, and may not on what wants a gradient.
        outputs = pytree.tree_leaves(module(*[tensor.clone() for tensor in given], **kwargs))
        differentiable = [output for output in outputs if output.requires_grad]
        # Not ones: the sum over a normalised output has no gradient.
        torch.autograd.backward(differentiable, [torch.randn_like(each) for each in differentiable])
    sources = [(f"input {index}", tensor) for index, tensor in enumerate(given)]
    sources += module.named_parameters()
    return {
        **{f"output {index}": output for index, output in enumerate(outputs)},
        **{f"gradient of {name}": x.grad for name, x in sources if x.grad is not None},
        **{f"buffer {name}": buffer for name, buffer in module.named_buffers()},
    }


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.dtype is not other.dtype or one.shape != other.shape or one.layout is not other.layout:
        return False
    if one.layout is torch.sparse_coo:
        one, other = one.coalesce(), other.coalesce()
        return _same(one.indices(), other.indices()) and _same(one.values(), other.values())
    # As bits, so that nan is nan, and -0.0 is not 0.0.
    bits = [each.detach().flatten().contiguous().view(torch.uint8) for each in (one, other)]
    return torch.equal(*bits)
