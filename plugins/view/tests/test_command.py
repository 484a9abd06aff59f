"""``layergraph view``."""

from __future__ import annotations

import json

import pytest

import layergraph as lg
from layergraph.ir import Implementation, Ir
from layergraph_cli.app import run
from layergraph_view import view
from plugins.view.tests.models import net_ir
from plugins.view.tests.test_view import data_of


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lg.save(net_ir(2), "net.json")
    return tmp_path / "net.json"


def test_the_page_of_a_file(file, capsys):
    assert run(["view", "net.json"]) == 0
    assert capsys.readouterr().out == "net.html\n"
    made = (file.parent / "net.html").read_text(encoding="utf-8")
    assert made == view(lg.load(file), title="net").html


@pytest.mark.parametrize("suffix", [".svg", ".mmd", ".dot", ".explorer.json"])
def test_other_formats(file, suffix, capsys):
    options = ["--depth", "2", "--shapes", "5,3"]
    assert run(["view", "net.json", "-o", f"out{suffix}", *options]) == 0
    capsys.readouterr()
    text = (file.parent / f"out{suffix}").read_text(encoding="utf-8")
    lg.save(lg.load(file), file.parent / f"net{suffix}", depth=2, args=[(5, 3)])
    assert text == (file.parent / f"net{suffix}").read_text(encoding="utf-8")
    assert "5, 3" in text


def test_shapes_by_name(file):
    assert run(["view", "net.json", "--shapes", "x=float64[batch,3]"]) == 2
    assert run(["view", "net.json", "--shapes", "x=float32[batch,3]"]) == 0
    assert "float32[batch, 3]" in str(data_of((file.parent / "net.html").read_text()))


def test_what_has_changed(file):
    new = net_ir(2)
    new["first"].data["bias"] = False
    lg.save(new, "new.json")
    assert run(["view", "new.json", "--diff", "net.json"]) == 0
    made = data_of((file.parent / "new.html").read_text(encoding="utf-8"))
    place = list(new).index("first")
    assert made["changes"] == [[place, None, "first: ~ attribute bias: True -> False"]]


def test_a_model_that_no_plugin_builds_has_a_page(file):
    lg.save(Ir([Implementation("acme_thing", name="root")], "root"), "odd.json")
    assert run(["view", "odd.json"]) == 0
    made = data_of((file.parent / "odd.html").read_text(encoding="utf-8"))
    assert "parameters" not in made["layers"][0]
    assert made["notes"][0].startswith("The parameters are unknown: ")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.json"], "missing.json"),
        (["net.json", "-o", "net.png"], "there is no picture of that suffix"),
        (["net.json", "-o", "no/net.svg"], "check the path"),
        (["net.json", "--shapes", "5,4"], "does not take these inputs"),
        (["net.json", "--diff", "missing.json"], "missing.json"),
    ],
)
def test_refusals_write_nothing(file, arguments, said, capsys):
    assert run(["view", *arguments]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert [each.name for each in file.parent.iterdir()] == ["net.json"]


def test_a_file_that_is_no_model_is_refused(file, capsys):
    file.write_text(json.dumps({"<img onerror=alert(1)>": 1}))
    assert run(["view", "net.json"]) == 2
    assert capsys.readouterr().err.startswith("layergraph: net.json: ")
