"""The command on real models, compared with the output that its page shows."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch
import torchvision

import layergraph as lg
from layergraph_cli.app import run

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "command-line.md").read_text()
EXAMPLES = re.findall(r"^```console\n(.*?)^```\n", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments):
        code = run(arguments)
        said = capsys.readouterr()
        return code, said.out + said.err

    return call


def _matches(shown, printed):
    """Return whether a text matches an example, in which three dots stand for any text."""
    pattern = ".*".join(re.escape(part) for part in shown.split("..."))
    return re.fullmatch(pattern, printed, re.DOTALL)


def test_examples_of_the_page(command, tmp_path):
    (code,) = re.findall(
        r"^```python title=\"models.py\"\n(.*?)^```\n", PAGE, re.DOTALL | re.MULTILINE
    )
    (tmp_path / "models.py").write_text(code)
    torch.save(torch.nn.ReLU(), tmp_path / "model.pt")
    try:
        for example in EXAMPLES:
            _, *steps = re.split(r"^\$ layergraph ", example, flags=re.MULTILINE)
            for step in steps:
                arguments, _, shown = step.partition("\n")
                _, printed = command(*shlex.split(arguments))
                assert _matches(shown, printed), printed
    finally:
        del sys.modules["models"]


def test_every_command_is_on_the_page(command):
    _, said = command("--help")
    commands = re.findall(r"^  ([a-z-]+)  ", said.partition("Commands:")[2], re.MULTILINE)
    assert len(commands) >= 6
    assert [name for name in commands if f"\n## {name}\n" not in PAGE] == []


def test_a_model_of_torchvision(command):
    model = "torchvision.models:mobilenet_v2"
    assert command("convert", model, "m.safetensors", "--arg", "num_classes=7")[0] == 0
    assert command("check", "m.safetensors")[0] == 0
    code, said = command("show", "m.safetensors", "--depth", "0")
    assert code == 0
    loaded = lg.load_model("m.safetensors")
    parameters, buffers = (
        sum(tensor.numel() for tensor in tensors)
        for tensors in (loaded.parameters(), loaded.buffers())
    )
    count = len(loaded.state_dict())
    assert f"{count} tensors, {parameters:,} parameters, {buffers:,} in buffers" in said
    assert command("convert", model, "n.json")[0] == 0
    code, said = command("diff", "m.safetensors", "n.json")
    assert code == 1
    assert said == "classifier.1:\n  ~ attribute out_features: 7 -> 1000\n"


def test_a_model_of_transformers(command, tmp_path):
    (tmp_path / "small_bert.py").write_text(
        "import torch\n"
        "from transformers import BertConfig, BertModel\n"
        "def model(layers=1):\n"
        "    return BertModel(BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=layers,\n"
        "        num_attention_heads=2, intermediate_size=16)).eval()\n"
        "def inputs():\n"
        "    return (), {'input_ids': torch.arange(6).reshape(2, 3)}\n"
    )
    for layers in (1, 2):
        code, said = command(
            *f"convert small_bert:model b{layers}.safetensors --arg layers={layers}".split(),
            *"--inputs small_bert:inputs".split(),
        )
        assert code == 0, said
        assert command("check", f"b{layers}.safetensors")[0] == 0
    difference = lg.diff(lg.load("b1.safetensors"), lg.load("b2.safetensors"))
    assert {each.kind for each in difference.changes if not each.path} == {"added"}
    assert all(each.layer.startswith("encoder") for each in difference.changes)


def test_one_layer_more_in_a_model_of_torchvision():
    edited = torchvision.models.mobilenet_v2()
    edited.features.insert(5, torch.nn.Dropout())
    difference = lg.diff(lg.to_ir(torchvision.models.mobilenet_v2()), lg.to_ir(edited))
    numbers = [str(number) for number in range(5, 20)]
    assert str(difference).splitlines() == [
        "features:",
        f"  ~ children: {numbers[:-1]} -> {numbers[1:]}",
        "  + node _5: _5 = dropout features.5(_4)",
        "  ~ node _6, args: [_4] -> [_5]",
        "+ features.5: dropout(p=0.5)",
    ]
