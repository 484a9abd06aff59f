"""Regions of a method: an enter node and an exit node become a ``with`` block."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from layergraph.ir import INPUT, Ref, Value
from layergraph_source.steps import Step

_ENTER = {
    "layergraph.set_grad_enabled": "layergraph.set_grad_enabled",
    "layergraph.enter_autocast": "layergraph.exit_autocast",
    "layergraph.select_attention": "layergraph.select_attention",
}
REGIONS = frozenset({*_ENTER, *_ENTER.values()})
_KERNELS = {
    "flash": "FLASH_ATTENTION",
    "mem_efficient": "EFFICIENT_ATTENTION",
    "math": "MATH",
    "cudnn": "CUDNN_ATTENTION",
}


@dataclass(frozen=True, slots=True)
class Region:
    """A region.

    Attributes:
        kind: the name of the function that enters it.
        end: the place of the step that exits it.
        given: the arguments of the enter node.
    """

    kind: str
    end: int
    given: tuple[Value, ...]

    def kernels(self, torch: str) -> list[str]:
        """Return the expressions of the kernels of attention that it selects."""
        names = self.given[0] if self.given else ()
        backends = f"{torch}.nn.attention.SDPBackend"
        return [f"{backends}.{_KERNELS[each]}" for each in names if each in _KERNELS]

    def opening(self, torch: str, args: Sequence[str]) -> str:
        """Return the expression of the context that a ``with`` block enters.

        Args:
            torch: the name of torch.
            args: the expressions of the enter node's arguments.
        """
        if self.kind == "set_grad_enabled":
            is_off = args[0] == "False"
            return f"{torch}.no_grad()" if is_off else f"{torch}.set_grad_enabled({args[0]})"
        if self.kind == "select_attention":
            return f"{torch}.nn.attention.sdpa_kernel([{', '.join(self.kernels(torch))}])"
        device, dtype, enabled, cache = args
        given = [device]
        given += [f"dtype={dtype}"] if dtype != "None" else []
        given += [f"enabled={enabled}"] if enabled != "True" else []
        given += [f"cache_enabled={cache}"]
        return f"{torch}.autocast({', '.join(given)})"


def regions_of(steps: Sequence[Step]) -> dict[int, Region]:
    """Return the regions that begin and end among steps, by the index of their first step.

    Only properly nested regions whose steps always run are returned.
    """
    found: dict[int, Region] = {}
    opened: list[int] = []
    places = {step.node.name: at for at, step in enumerate(steps)}
    for at, step in enumerate(steps):
        name = step.node.implementation
        if name not in REGIONS or step.when is not None or step.mode is not None:
            continue
        begin = places.get(step.args[0].node) if step.args and type(step.args[0]) is Ref else None
        if begin is not None and opened and opened[-1] == begin:
            opened.pop()
            kind = steps[begin].node.implementation
            if _ENTER.get(kind) == name:
                found[begin] = Region(kind.partition(".")[2], at, steps[begin].args)
        elif name in _ENTER:
            opened.append(at)
    return found


def is_whole(steps: Sequence[Step]) -> bool:
    """Return whether steps of two modes share their inputs, and each region is a block."""
    if any(step.node.type == INPUT and step.mode is not None for step in steps):
        return False
    begun = regions_of(steps)
    known = {at for begin, region in begun.items() for at in (begin, region.end)}
    return all(
        at in known or step.mode is not None
        for at, step in enumerate(steps)
        if step.node.implementation in REGIONS and step.when is None
    )
