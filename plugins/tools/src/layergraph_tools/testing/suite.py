"""The checks that a plugin's layers go through."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from unittest import SkipTest

import torch
from torch import nn

from layergraph.api import default_torch2ir, to_ir, to_torch
from layergraph.errors import CaptureError, LayergraphError
from layergraph.io import load, load_model, save
from layergraph.ir import ROOT, Implementation, Ir, find_problems
from layergraph.layers import signature_of
from layergraph_tools.testing.cases import VARIANTS, Case, expect
from layergraph_tools.testing.changes import changes, differing, shared, snapshot
from layergraph_tools.testing.comparing import compare_features, compare_runs
from layergraph_tools.testing.precedence import expect_answers_of


class LayerTests:
    """Checks of a plugin's layers, to be subclassed.

    Every method named ``check_…`` becomes one test for each case; a subclass may add its own.

    Attributes:
        distribution: the name of the plugin's distribution, which has to be installed: for each
            case it has to answer. Empty for handlers that are no plugin's.
        cases: the cases by name.
        classes: the classes that the plugin is for: each must have a case.
        derived: attributes of the layers that follow from others, or do not matter, so that they
            need not come back where somebody sets them.
    """

    distribution: ClassVar[str] = ""
    cases: ClassVar[Mapping[str, Case]] = {}
    classes: ClassVar[Collection[type[nn.Module]]] = ()
    derived: ClassVar[Collection[str]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for check in [name for name in dir(cls) if name.startswith("check_")]:
            for name, case in cls.cases.items():
                setattr(cls, f"test_{check.removeprefix('check_')}[{name}]", _test(check, case))

    def test_every_class_has_a_case(self) -> None:
        """There are cases, and none of the classes was forgotten."""
        made = [case for case in self.cases.values() if case.skip is None]
        forgotten = set(self.classes) - {type(case.make()) for case in made}
        expect(bool(self.cases), "there are no cases; list some in `cases`")
        named = sorted(cls.__name__ for cls in forgotten)
        expect(not forgotten, f"there is no case for {', '.join(named)}; add one for each")

    def check_leaf(self, case: Case) -> None:
        """It is one leaf of its type with plain values, which comes back from a dict."""
        module = case.make()
        ir = to_ir(module)
        leaf, kind = ir[ir.root], case.kind_of(module)
        expect(
            leaf.type == kind,
            f"its type is {leaf.type!r}, not {kind!r}: the handler did not answer, or names the "
            "type otherwise; layergraph.explain tells who answers, and `kind` in the case names "
            "another type",
        )
        expect(
            len(ir) == 1 and not leaf.nodes and leaf.children is None,
            f"it is no leaf; the handler must leave out nodes and children:\n{ir}",
        )
        expect(not find_problems(ir), f"it breaks rules of the IR: {find_problems(ir)}")
        expect(
            Ir.from_dict(ir.to_dict()) == ir,
            f"its dict means something else; use values that compare as equal: {ir.to_dict()}",
        )

    def check_attributes(self, case: Case) -> None:
        """Its attributes are what it was made with, and nothing that passes."""
        module = case.scrambled()
        said = to_ir(module)[ROOT].data
        others: dict[str, Callable[[], nn.Module]] = {
            "it is asked about it again": lambda: module,
            "it has other weights": case.scrambled,
            "it is in eval mode": module.eval,
            "it is of float64": module.double,
            "it is on the meta device": lambda: module.to("meta"),
        }
        for when, make in others.items():
            answer = _asked(make())
            now = None if answer is None else answer.data
            expect(
                repr(now) == repr(said),
                f"the attributes are {said}, but when {when} {now}; say only what the constructor "
                "was given, and decide only by that: the core keeps weights, modes and dtypes",
            )

    def check_left_alone(self, case: Case) -> None:
        """Neither direction changes what it is given, or torch's random numbers."""
        module = case.make()
        common = shared(module, case.make())
        expect(
            not common,
            f"two modules of the case share {', '.join(common)}; `make` must make all of it new",
        )
        before, state = snapshot(module), torch.get_rng_state()
        ir = to_ir(module)
        changed = differing(before, snapshot(module))
        expect(not changed, f"torch_to_ir changed the module ({', '.join(changed)}); it must not")
        drawn = not torch.equal(state, torch.get_rng_state())
        expect(not drawn, "torch_to_ir drew random numbers, which changes what the user draws next")
        said = repr(ir.to_dict())
        one = to_torch(ir)
        expect(
            repr(ir.to_dict()) == said,
            f"ir_to_torch changed the implementation, from {said} to {ir.to_dict()}; copy its data",
        )
        common = [*shared(module, one), *shared(one, to_torch(ir))]
        expect(
            not common,
            f"two modules share {', '.join(common)}; ir_to_torch must make all of it new at each "
            "call, and must not keep what it was given",
        )

    def check_rebuilt(self, case: Case) -> None:
        """It comes back of the same class, with the same state."""
        for variant, change in VARIANTS.items():
            module = change(case.scrambled())
            compare_features(module, to_torch(to_ir(module), module.state_dict()), case, variant)

    def check_behaviour(self, case: Case) -> None:
        """It comes back computing the same, bit for bit."""
        for variant in ("as made", "in float64"):
            module = VARIANTS[variant](case.scrambled())
            compare_runs(module, to_torch(to_ir(module), module.state_dict()), case, variant)

    def check_file(self, case: Case) -> None:
        """It comes back from files: the same IR, state and outputs."""
        module = case.scrambled().eval()
        ir = to_ir(module)
        with tempfile.TemporaryDirectory() as folder:
            text, binary = Path(folder, "model.json"), Path(folder, "model.safetensors")
            save(ir, text)
            save(ir, binary, module.state_dict())
            for path in (text, binary):
                loaded = load(path)
                expect(
                    loaded == ir,
                    f"from a {path.suffix} it comes back as another IR; use values that compare as "
                    f"equal:\n{ir}\nbecame\n{loaded}",
                )
            # Its weights are the file itself, which some systems do not delete while it is used.
            rebuilt = load_model(binary)
            compare_features(module, rebuilt, case, "from a file")
            compare_runs(module, rebuilt, case, "from a file", modes=["evaluating"])
            del rebuilt

    def check_in_sequential(self, case: Case) -> None:
        """Inside a model it is the same layer, and comes back so."""
        model = nn.Sequential(case.scrambled())
        ir, alone = to_ir(model), to_ir(model[0])
        same = ir.get("0") == replace(alone[alone.root], name="0")
        expect(
            same,
            f"alone it is\n{alone}\nbut in a Sequential\n{ir}\nthe handler must look at nothing "
            "but the module",
        )
        if len(case.inputs) == 1 and not case.kwargs:  # Sequential takes no more
            rebuilt = to_torch(ir, model.state_dict())
            compare_runs(model, rebuilt, case, "in a Sequential", modes=["training"])

    def check_exact_class(self, case: Case) -> None:
        """What is almost the layer is not taken for it."""
        inherited, hooked = case.make(), case.make()
        kind, cls = case.kind_of(inherited), type(inherited)
        inherited.__class__ = type(f"Own{cls.__name__}", (cls,), {})
        hooked.register_forward_hook(lambda *_: None)
        for what, module in {"a subclass": inherited, "one with a hook": hooked}.items():
            try:
                ir = to_ir(module)
            except CaptureError:  # it was traced through, which can need inputs
                continue
            expect(
                ir[ir.root].type != kind,
                f"{what} was taken for the layer, and may compute something else; answer only "
                f"where `type(module) is {cls.__name__}`",
            )

    def check_precedence(self, case: Case) -> None:
        """It is this distribution that answers, or wraps what others answer."""
        if self.distribution:
            expect_answers_of(self.distribution, case.make())

    def check_changed(self, case: Case) -> None:
        """What is done to it after it was made comes back, or it is not taken for the layer."""
        module = case.make()
        for change in changes(module, but=self.derived):
            try:
                with warnings.catch_warnings(action="ignore"):  # of what nobody would make
                    answer = _asked(module)
                    if answer is None:
                        continue
                    rebuilt = to_torch(Ir([replace(answer, name=ROOT)]))
            except Exception:  # noqa: S112 - it is refused, and not lost in silence
                continue
            expect(
                change.is_in(rebuilt),
                f"with {change.what} after it was made, it was taken for the layer, and that was "
                f"lost; {change.advice}",
            )

    def check_damaged(self, case: Case) -> None:
        """Without a required attribute, or with an unknown one, it is refused."""
        module = case.make()
        leaf = to_ir(module)[ROOT]
        damaged = {"with an unknown attribute": leaf.data | {"no_such_attribute": 0}}
        for name, parameter in signature_of(type(module)).parameters.items():
            if parameter.default is parameter.empty and name in leaf.data:
                damaged[f"without {name}"] = {k: v for k, v in leaf.data.items() if k != name}
        for what, data in damaged.items():
            try:
                built = to_torch(Ir([replace(leaf, data=data)]))
            except LayergraphError:
                continue
            raise AssertionError(
                f"{what}, it was built all the same, as {built}; ir_to_torch must refuse "
                "attributes that it does not know, and have no defaults where the constructor has "
                "none"
            )


def _test(check: str, case: Case) -> Callable[[LayerTests], None]:
    def test(self: LayerTests) -> None:
        if case.skip is not None:
            raise SkipTest(case.skip)
        getattr(self, check)(case)

    return test


def _asked(module: nn.Module) -> Implementation | None:
    """What the handlers say of a module: it is not traced through, which takes its time."""
    answer: Implementation | None = default_torch2ir().hooks.ask.torch_to_ir(module=module)
    return answer if answer is None or answer.children is None else None
