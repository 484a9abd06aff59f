"""The checks of a plugin's layers."""

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
from layergraph.ir import ROOT, Implementation, Ir, find_problems
from layergraph.layers import signature_of
from layergraph_files.api import load, load_model, save
from layergraph_tools.testing.cases import VARIANTS, Case, expect
from layergraph_tools.testing.changes import changes, differing, shared, snapshot
from layergraph_tools.testing.comparing import compare_features, compare_runs
from layergraph_tools.testing.precedence import expect_answers_of


class LayerTests:
    """Base class of the tests of a plugin's layers.

    Every method named ``check_…`` becomes one test for each case; a subclass may add more.

    Attributes:
        distribution: the name of the plugin's distribution. It must be installed, and must answer
            for each case. Empty for handlers outside a plugin.
        cases: the cases by name.
        classes: the classes that the plugin handles: each must have a case.
        derived: attributes of the layers that follow from others or have no effect. If a user sets
            one, the rebuilt layer need not have that value.
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
        """Check that there are cases, and one for each class."""
        made = [case for case in self.cases.values() if case.skip is None]
        forgotten = set(self.classes) - {type(case.make()) for case in made}
        expect(bool(self.cases), "there are no cases; list some in `cases`")
        named = sorted(cls.__name__ for cls in forgotten)
        expect(not forgotten, f"there is no case for {', '.join(named)}; add one for each")

    def check_leaf(self, case: Case) -> None:
        """Check that the layer is one leaf with plain values, and survives the dict form."""
        module = case.make()
        ir = to_ir(module)
        leaf, kind = ir[ir.root], case.kind_of(module)
        expect(
            leaf.type == kind,
            f"its type is {leaf.type!r}, not {kind!r}: the handler did not answer, or returns "
            "another type; layergraph.explain shows which handler answers, and `kind` in the case "
            "sets the expected type",
        )
        expect(
            len(ir) == 1 and not leaf.nodes and leaf.children is None,
            f"it is not a leaf; the handler must leave out nodes and children:\n{ir}",
        )
        expect(not find_problems(ir), f"it breaks rules of the IR: {find_problems(ir)}")
        expect(
            Ir.from_dict(ir.to_dict()) == ir,
            f"the IR of its dict form differs; use values that compare as equal: {ir.to_dict()}",
        )

    def check_attributes(self, case: Case) -> None:
        """Check that attributes depend on the constructor alone, not on weights, mode or dtype."""
        module = case.scrambled()
        said = to_ir(module)[ROOT].data
        others: dict[str, Callable[[], nn.Module]] = {
            "the handler is called again": lambda: module,
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
                f"the attributes are {said}, but when {when} {now}; return only the arguments of "
                "the constructor, and decide only by these: the core keeps weights, modes and "
                "dtypes",
            )

    def check_left_alone(self, case: Case) -> None:
        """Check that neither direction changes its argument or torch's random state."""
        module = case.make()
        common = shared(module, case.make())
        expect(
            not common,
            f"two modules of the case share {', '.join(common)}; `make` must create new objects",
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
            f"two modules share {', '.join(common)}; ir_to_torch must create new objects at each "
            "call, and must not keep its arguments",
        )

    def check_rebuilt(self, case: Case) -> None:
        """Check that the rebuilt layer has the same class and state."""
        for variant, change in VARIANTS.items():
            module = change(case.scrambled())
            compare_features(module, to_torch(to_ir(module), module.state_dict()), case, variant)

    def check_behaviour(self, case: Case) -> None:
        """Check that the rebuilt layer computes the same, bit for bit."""
        for variant in ("as made", "in float64"):
            module = VARIANTS[variant](case.scrambled())
            compare_runs(module, to_torch(to_ir(module), module.state_dict()), case, variant)

    def check_file(self, case: Case) -> None:
        """Check that files return the same IR, state and outputs."""
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
                    f"a {path.suffix} file returns another IR; use values that compare as "
                    f"equal:\n{ir}\nbecame\n{loaded}",
                )
            # Its weights are mapped from the file, which some systems do not delete while in use.
            rebuilt = load_model(binary)
            compare_features(module, rebuilt, case, "from a file")
            compare_runs(module, rebuilt, case, "from a file", modes=["evaluating"])
            del rebuilt

    def check_in_sequential(self, case: Case) -> None:
        """Check that the layer converts in a Sequential as it does alone."""
        model = nn.Sequential(case.scrambled())
        ir, alone = to_ir(model), to_ir(model[0])
        same = ir.get("0") == replace(alone[alone.root], name="0")
        expect(
            same,
            f"alone it is\n{alone}\nbut in a Sequential\n{ir}\nthe handler must read nothing but "
            "the module",
        )
        if len(case.inputs) == 1 and not case.kwargs:  # Sequential takes no more
            rebuilt = to_torch(ir, model.state_dict())
            compare_runs(model, rebuilt, case, "in a Sequential", modes=["training"])

    def check_exact_class(self, case: Case) -> None:
        """Check that the handler declines a subclass, and a layer with a hook."""
        inherited, hooked = case.make(), case.make()
        kind, cls = case.kind_of(inherited), type(inherited)
        inherited.__class__ = type(f"Own{cls.__name__}", (cls,), {})
        hooked.register_forward_hook(lambda *_: None)
        for what, module in {"a subclass": inherited, "one with a hook": hooked}.items():
            try:
                ir = to_ir(module)
            except CaptureError:  # it was traced through, and this one needs example inputs
                continue
            expect(
                ir[ir.root].type != kind,
                f"the handler answers for {what}, which may compute something else; answer only "
                f"if `type(module) is {cls.__name__}`",
            )

    def check_precedence(self, case: Case) -> None:
        """Check that this distribution answers, or wraps the answer."""
        if self.distribution:
            expect_answers_of(self.distribution, case.make())

    def check_changed(self, case: Case) -> None:
        """Check that a change after construction is kept, or that the handler declines."""
        module = case.make()
        for change in changes(module, but=self.derived):
            try:
                with warnings.catch_warnings(action="ignore"):  # the layer is odd on purpose
                    answer = _asked(module)
                    if answer is None:
                        continue
                    rebuilt = to_torch(Ir([replace(answer, name=ROOT)]))
            except Exception:  # noqa: S112 - it is refused, and not lost in silence
                continue
            expect(
                change.is_in(rebuilt),
                f"the handler answers for a layer with {change.what} after construction, and the "
                f"rebuilt layer lacks that change; {change.advice}",
            )

    def check_damaged(self, case: Case) -> None:
        """Check that the build refuses a missing required attribute, and an unknown one."""
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
                f"{what}, the layer was built nevertheless, as {built}; ir_to_torch must refuse "
                "unknown attributes, and must not have a default if the constructor has none"
            )


def _test(check: str, case: Case) -> Callable[[LayerTests], None]:
    def test(self: LayerTests) -> None:
        if case.skip is not None:
            raise SkipTest(case.skip)
        getattr(self, check)(case)

    return test


def _asked(module: nn.Module) -> Implementation | None:
    """Return the handlers' answer for a module, without tracing it, which would take longer."""
    answer: Implementation | None = default_torch2ir().hooks.ask.torch_to_ir(module=module)
    return answer if answer is None or answer.children is None else None
