"""Models whose first call imports modules or installs hooks, and later calls do not."""

from __future__ import annotations

import importlib
import sys
import textwrap

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.testing import bitwise_equal


class Block(nn.Module):
    """A composite, so that the capture traces its hooks."""

    def __init__(self):
        super().__init__()
        self.inside = nn.Linear(3, 3)

    def forward(self, x):
        return self.inside(x) + 1


class Collecting(nn.Module):
    """Installs hooks in its first call, and records that in a flag."""

    def __init__(self, install):
        super().__init__()
        self.first = Block()
        self.second = nn.Linear(3, 3)
        self.install = install

    def forward(self, x):
        if not getattr(self, "is_ready", False):
            self.install(self.first)
            self.is_ready = True
        return self.second(self.first(x))


def _plain(module):
    module.register_forward_hook(lambda mod, args, out: out * 2)


def _with_keywords(module):
    module.register_forward_hook(
        lambda mod, args, kwargs, out: out * 2, with_kwargs=True, always_call=True
    )


def _before(module):
    module.register_forward_pre_hook(
        lambda mod, args, kwargs: ((args[0] * 2,), kwargs), with_kwargs=True
    )


@pytest.mark.parametrize("install", [_plain, _with_keywords, _before])
def test_hooks_of_the_first_call_are_installed_once(install):
    model, other, x = Collecting(install), Collecting(install), torch.rand(2, 3)
    other.load_state_dict(model.state_dict())
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    noted = [name for name in vars(nn.Module()) if "hooks" in name]
    assert not any(getattr(model.first, name) for name in noted)
    expected = other(x)
    assert bitwise_equal(model(x), expected)
    assert bitwise_equal(rebuilt(x), expected)


class Importing(nn.Module):
    """Imports a package in its first call."""

    def forward(self, x):
        from late_package.scales import scaled

        return scaled(x)


@pytest.fixture
def late_package(tmp_path, monkeypatch):
    package = tmp_path / "late_package"
    package.mkdir()
    sources = {
        "__init__": """
            KNOWN = {}
            def register(name, value):
                global LAST
                LAST = KNOWN[name] = value
            """,
        "scales": """
            import late_package
            TABLE = {}
            def _fill(name):
                TABLE[name] = len(TABLE) + 2.0
                late_package.register(name, TABLE)
            _fill("two")
            def scaled(x):
                from late_package import more
                return x * TABLE["two"] + more.OFFSET
            """,
        "more": """
            import torch
            OFFSET = torch.ones(3)
            """,
    }
    for name, text in sources.items():
        (package / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    yield
    for name in [each for each in sys.modules if each.partition(".")[0] == "late_package"]:
        del sys.modules[name]


@pytest.mark.parametrize("is_known", [False, True])
def test_a_late_import_stays(late_package, is_known):
    if is_known:
        importlib.import_module("late_package.more")
    model, x = Importing(), torch.rand(2, 3)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    package = sys.modules["late_package"]
    assert package.scales is sys.modules["late_package.scales"]
    assert package.more is sys.modules["late_package.more"]
    assert {"TABLE", "scaled", "_fill"} <= vars(package.scales).keys()
    assert package.LAST is package.scales.TABLE is package.KNOWN["two"]
    assert bitwise_equal(model(x), x * 2 + 1)
    assert bitwise_equal(rebuilt(x), model(x))


class Remembering(nn.Module):
    """Caches a value that it computes from its weights in eval mode; train() clears the cache."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(3))
        self.computed = {}

    def train(self, mode=True):
        super().train(mode)
        if mode and self.computed:
            self.computed = {}
        return self

    def forward(self, x):
        if "bias" not in self.computed:
            self.computed["bias"] = (self.weight * 2).detach()
        return x + self.computed["bias"]


def test_train_may_forget_what_was_computed():
    model, x = Remembering().eval(), torch.rand(2, 3)
    expected = model(x)
    rebuilt = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    assert bitwise_equal(rebuilt(x), expected)
    assert "bias" in model.computed


def test_train_may_not_forget_what_is_registered():
    class Forgetting(Remembering):
        def train(self, mode=True):
            self._buffers = {}
            return super().train(mode)

    model = Forgetting()
    model.register_buffer("kept", torch.rand(3))
    with pytest.raises(lg.errors.CaptureError, match="overrides train"):
        lg.to_ir(model, (torch.rand(2, 3),))
