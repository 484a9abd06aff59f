"""A check that a distribution answers for a module."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from layergraph.api import default_ir2torch, default_torch2ir
from layergraph.ir import Implementation
from layergraph.plugins import discovered
from layergraph.plugins.loading import normalised
from layergraph_tools.explain.chain import Chain
from layergraph_tools.testing.cases import expect


def expect_answers_of(distribution: str, module: nn.Module) -> None:
    """Check that a distribution answers for a module, among all installed plugins.

    Args:
        distribution: the name of the distribution. In each direction for which it has handlers, one
            of them must answer or wrap the answer.
        module: the module.

    Raises:
        AssertionError: the distribution does not answer, is not installed or was skipped.
    """
    name = normalised(distribution)
    hooks = _hooks_of(name)
    for chain in _chains(module):
        if chain.hook not in hooks:
            continue
        said = "\n".join(chain.lines())
        expect(
            _is_in(name, chain),
            f"{name} does not answer: check that it does not decline, and that no other plugin "
            "comes before it (@hookimpl(tryfirst=True) puts it before those without a mark), or "
            f"remove the hook:\n{said}",
        )


def _hooks_of(name: str) -> set[str]:
    """Return the hooks that a distribution implements."""
    found = discovered()
    for left_out in found.left_out:
        expect(left_out.distribution != name, str(left_out))
    plugins = [each for each in found.plugins if each.distribution == name]
    there = ", ".join(sorted({each.distribution for each in found.plugins}))
    expect(
        bool(plugins),
        f"no plugin of {name} is installed; install it, as with pip install --editable, and check "
        f"that its pyproject.toml has an entry point in the group layergraph; there are {there}",
    )
    return {each.hook for plugin in plugins for each in plugin.hooks}


def _chains(module: nn.Module) -> Iterator[Chain]:
    (there,) = default_torch2ir().explain(module).chains
    yield there
    if isinstance(there.answer, Implementation):
        yield from default_ir2torch().explain(there.answer).chains


def _is_in(name: str, chain: Chain) -> bool:
    answering = [chain.winner] if chain.winner else []
    return any(each.distribution == name for each in (*answering, *chain.wrappers))
