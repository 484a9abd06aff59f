"""The fuzz target reports nothing for a load of a valid file."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

import layergraph as lg
from fuzz.watch import Watch


class _Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(40, 40)
        self.register_buffer("hidden", torch.arange(3000.0), persistent=False)
        self.table = torch.arange(40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.lin(x) + self.hidden[:40] + self.table


def test_an_honest_file_is_no_finding(tmp_path: Path) -> None:
    model, path = _Model(), tmp_path / "m.safetensors"
    lg.save(lg.to_ir(model, (torch.ones(1, 40),)), path, model.state_dict())
    lg.load_model(path)  # run the late imports now
    with Watch(tmp_path).on():
        lg.load(path)
        lg.load_model(path)
