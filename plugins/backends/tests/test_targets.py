"""Targets come from installed packages, and the command line lists them."""

from __future__ import annotations

import pytest

from layergraph import Lowering
from layergraph.errors import ArgumentError
from layergraph_backends import command_line, handlers, handlers_of, targets


class Plugin:
    """As much of a plugin as the lists show."""

    is_builtin = False

    def __init__(self, distribution: str) -> None:
        self.distribution = distribution

    def __str__(self) -> str:
        return self.distribution


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        (Plugin("acme-first"), Lowering("acme", print, layers=["relu"])),
        (Plugin("acme-second"), Lowering("acme", print, layers=["relu", "tanh"])),
        (Plugin("acme-second"), Lowering("acme", print, functions=["torch.relu"])),
        (Plugin("other"), Lowering("other", print)),
    ]
    monkeypatch.setattr(handlers, "installed_answers", lambda hook: iter(rows))


def test_a_target_is_listed_with_all_packages_that_have_rows(installed: None) -> None:
    assert targets() == {"acme": ["acme-first", "acme-second"], "other": ["other"]}


def test_the_first_package_that_is_asked_handles_a_layer(installed: None) -> None:
    found = handlers_of("acme")
    owners = {name: each.plugin.distribution for name, each in found.layers.items()}
    assert owners == {"relu": "acme-first", "tanh": "acme-second"}
    assert list(found.functions) == ["torch.relu"]


def test_the_subcommand_prints_them(installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    command_line.targets()
    assert capsys.readouterr().out == "acme: acme-first, acme-second\nother: other\n"
    command_line.targets("acme")
    assert capsys.readouterr().out == (
        "relu: acme-first\ntanh: acme-second\ntorch.relu: acme-second\n"
    )
    with pytest.raises(ArgumentError, match="did you mean 'acme'"):
        command_line.targets("acne")
