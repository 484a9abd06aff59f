"""The command: its output, its exit codes, and its errors."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.ir import Implementation, Ir
from layergraph.testing import bitwise_equal
from layergraph_cli.app import run
from layergraph_cli.sizes import Size, by_owner
from plugins.cli.tests.harness import COMMAND, Done, install, search_path, spawn
from plugins.files.tests import test_files_damaged as damaged

pytestmark = pytest.mark.slow

model, parts, document = damaged.model, damaged.parts, damaged.document


@pytest.fixture
def cli(tmp_path, monkeypatch, capsys):
    """Run the command in this process, in a temporary folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments):
        code = run([str(each) for each in arguments])
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return call


class Net(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width))
        self.tied = nn.Linear(2, width)
        self.tied.weight = self.body[0].weight
        self.again = self.body

    def forward(self, x):
        return self.again(x) + self.body(x) + self.tied(x)


@pytest.fixture
def net(tmp_path):
    module = Net()
    lg.save(lg.to_ir(module), tmp_path / "net.safetensors", module.state_dict())
    lg.save(lg.to_ir(module), tmp_path / "net.json")
    return module


# --- show ---

SHOWN = """\
parameters  buffers  bytes  layer
        18        7    104  root: module()
        15        7     92    body: sequential()
         9        0     36      0: linear(in_features=2, out_features=3, bias=True)
         6        7     56      1: batchnorm1d(num_features=3, eps=1e-05, momentum=0.1, \
affine=True, track_running_stats=True)
         3        0     12    tied: linear(in_features=2, out_features=3, bias=True)
         0        0      0    again: see body
5 layers, 8 tensors, 18 parameters, 7 in buffers, 104 bytes
"""


@pytest.mark.parametrize("name", ["net.safetensors", "net.json"])
def test_show_counts_each_tensor_once(cli, net, name):
    assert cli("show", name) == Done(0, SHOWN, "")
    total = {id(t): t.numel() for t in net.state_dict(keep_vars=True).values()}
    assert sum(total.values()) == 25


def test_show_takes_several_files_and_their_folder(cli, net, tmp_path):
    lg.save(lg.to_ir(net), tmp_path / "model.safetensors", net.state_dict(), max_shard_size="40")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    for name in (".", "model.safetensors", "model.safetensors.index.json"):
        assert cli("show", name) == Done(0, SHOWN, "")


def test_show_as_deep_as_is_asked(cli, net):
    lines = SHOWN.splitlines()
    for depth, shown in ((0, [0, 1, -1]), (1, [0, 1, 2, 5, 6, -1]), (9, range(len(lines)))):
        done = cli("show", "net.safetensors", "--depth", depth)
        assert done.out.splitlines() == [lines[index] for index in shown]


def test_show_gives_what_dotted_children_have(cli, net, tmp_path):
    lg.save(lg.to_ir(net).flatten(), tmp_path / "flat.safetensors", net.state_dict())
    done = cli("show", "flat.safetensors")
    assert "\n         9        0     36      0: linear" in done.out
    assert done.out.endswith("5 layers, 8 tensors, 18 parameters, 7 in buffers, 104 bytes\n")
    ir = Ir(
        [
            Implementation("module", name="root", children={"a.b": "x", "a": "y"}),
            Implementation("linear", {"in_features": 1, "out_features": 1}, name="x"),
            Implementation("linear", {"in_features": 2, "out_features": 1}, name="y"),
        ]
    )
    tensors = [("a.b.weight", Size(1, 1, 4)), ("a.weight", Size(1, 2, 8))]
    owned = {name: size.numbers for name, size in by_owner(ir, tensors).items()}
    assert owned == {"root": 0, "x": 1, "y": 2}


def test_show_says_when_sizes_are_unknown(cli, tmp_path):
    lg.save(Ir([Implementation("unheard", {"a": None}, name="root")]), tmp_path / "m.json")
    done = cli("show", "m.json")
    assert done.code == 0
    assert done.out.splitlines()[0] == "root: unheard(a=None)"
    assert "1 layer; sizes are unknown: m.json: " in done.out
    assert "no handler for type 'unheard'" in done.out
    form = json.loads(cli("show", "m.json", "--json").out)
    assert form["total"] is None
    assert form["sizes"]["from"] == "unknown"
    assert form["layers"][0]["size"] is None


def test_show_the_wiring(cli, net):
    ir = lg.load("net.json")
    assert cli("show", "net.json", "--graph") == Done(0, f"{ir}\n", "")
    form = json.loads(cli("show", "net.json", "--graph", "--json").out)
    assert form == {"file": "net.json", "graph": str(ir).splitlines()}


def test_show_for_scripts(cli, net):
    form = json.loads(cli("show", "net.safetensors", "--json", "--depth", 1).out)
    layers = form.pop("layers")
    assert form == {
        "file": "net.safetensors",
        "root": "root",
        "has_weights": True,
        "sizes": {"from": "file", "reason": ""},
        "total": {"tensors": 8, "numbers": 25, "bytes": 104, "parameters": 18, "buffers": 7},
    }
    assert [each["name"] for each in layers] == ["root", "body", "tied", "body"]
    assert layers[2] == {
        "name": "tied",
        "child": "tied",
        "level": 1,
        "seen": False,
        "type": "linear",
        "data": {"in_features": 2, "out_features": 3, "bias": True},
        "training": None,
        "size": {"tensors": 1, "numbers": 3, "bytes": 12, "parameters": 3, "buffers": 0},
    }
    assert layers[3]["seen"]


def test_millions_of_paths_are_no_millions_of_lines(cli, tmp_path):
    levels = [
        Implementation("module", name=f"l{n}", children={"a": f"l{n + 1}", "b": f"l{n + 1}"})
        for n in range(40)
    ]
    root = Implementation("module", name="root", children={"top": "l0"})
    lg.save(Ir([root, *levels, Implementation("relu", name="l40")]), tmp_path / "m.json")
    done = cli("show", "m.json")
    assert done.code == 2 or len(done.out.splitlines()) == 83


def test_structures_are_shown_without_torch(net, tmp_path):
    code = (
        "import sys; from layergraph_cli.app import run; "
        "codes = [run(each) for each in (['--help'], ['show', 'net.safetensors', '--graph'], "
        "['show', 'net.json', '--graph'], ['diff', 'net.json', 'net.safetensors'])]; "
        "print(codes, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stderr == ""
    assert str(lg.load(tmp_path / "net.json")) in done.stdout
    assert done.stdout.splitlines()[-1] == "[0, 0, 0, 0] False"


# --- check, diff ---


def test_check_says_ok(cli, net, tmp_path):
    assert cli("check", "net.safetensors").out == "OK: net.safetensors: 5 layers, 8 tensors\n"
    assert cli("check", "net.json").out == "OK: net.json: 5 layers, no weights\n"
    assert json.loads(cli("check", "net.json", "--json").out) == {
        "file": "net.json",
        "ok": True,
        "layers": 5,
        "tensors": 0,
        "problems": [],
    }


def _damaged(tmp_path, parts, document):
    """Yield a file for each example of damage, and whether a reader can parse the file."""
    path = tmp_path / "m.safetensors"
    for content, _ in damaged.CONTAINERS.values():
        path.write_bytes(content)
        yield path, False
    header, data = parts
    for damage, _ in damaged.HEADERS.values():
        spoilt = json.loads(json.dumps(header))
        damage(spoilt)
        yield damaged._write(path, spoilt, data), False
    for table, is_read in (
        (damaged.STRUCTURES, False),
        (damaged.INVALID, False),
        (damaged.BUILDS, True),
    ):
        for damage, *_ in table.values():
            spoilt = json.loads(json.dumps(document))
            damage(spoilt)
            yield damaged._with(path, parts, spoilt), is_read
    for old, new, _ in damaged.TEXTS.values():
        yield damaged._with(path, parts, json.dumps(document).replace(old, new)), False


def test_damaged_files_are_told_in_one_line(cli, tmp_path, parts, document):
    count = 0
    for path, is_read in _damaged(tmp_path, parts, document):
        count += 1
        done = cli("check", path)
        assert (done.code, done.err) == (1, "")
        assert str(path) in done.out
        assert "Traceback" not in done.out
        form = json.loads(cli("check", path, "--json").out)
        assert form["ok"] is False
        assert form["problems"] == done.out.splitlines()
        for arguments in (["show", path, "--graph"], ["diff", path, path]):
            done = cli(*arguments)
            if is_read:
                assert (done.code, done.err) == (0, "")
            else:
                done.refused(str(path))
    assert count > 70


def test_check_refuses_an_integer_that_is_too_long_to_print(cli, tmp_path):
    nodes = [
        {"name": "x", "type": "input", "implementation": "x"},
        {"name": "y", "type": "function", "implementation": "torch.add"},
        {"name": "output", "type": "output", "implementation": "output", "args": [{"ref": "x"}]},
    ]
    nodes[1]["args"] = [{"ref": "x"}, {"int": hex(2**30_000)}]
    root = {"name": "root", "type": "module", "children": [], "nodes": nodes}
    form = {"format": "layergraph", "version": 1, "root": "root", "implementations": [root]}
    (tmp_path / "m.json").write_text(json.dumps(form))
    done = cli("check", "m.json")
    assert (done.code, done.err) == (1, "")
    assert "more digits" in done.out


def test_check_tells_all_broken_rules_and_others_the_first(cli, tmp_path, parts, document):
    node = damaged._node(document)
    node["args"] += [{"ref": "missing"}, {"ref": "no one"}]
    path = damaged._with(tmp_path / "m.safetensors", parts, document)
    done = cli("check", path)
    assert len(done.out.splitlines()) == 4
    cli("show", path).refused("'missing'", "(and 3 more: layergraph check lists them)")


def test_diff_ends_as_diff_does(cli, net, tmp_path):
    lg.save(lg.to_ir(Net(4)), tmp_path / "wide.json")
    assert cli("diff", "net.json", "net.safetensors") == Done(0, "no differences\n", "")
    done = cli("diff", "net.json", "wide.json")
    assert done.code == 1
    assert done.out == f"{lg.diff(lg.load('net.json'), lg.load('wide.json'))}\n"
    cli("diff", "net.json", "none.json").refused("none.json: No such file or directory; check")
    form = json.loads(cli("diff", "net.json", "wide.json", "--json").out)
    assert (form["a"], form["b"], form["alike"]) == ("net.json", "wide.json", False)
    assert form["changes"][0] == {
        "kind": "changed",
        "layer": "body.0",
        "path": ["data", "out_features"],
        "before": 3,
        "after": 4,
    }


# --- convert ---

MODELS = """
import sys
import torch
from torch import nn

def net(width=2, act=None, hook=False):
    act = nn.Tanh() if act == "tanh" else nn.ReLU()
    return nn.Sequential(nn.Linear(2, width), act)

class Sized(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(2, 2)
    def forward(self, x, scale=1):
        if x.sum() is None or x.shape[0] > 100:
            raise ValueError("long")
        return self.last(x) * scale

def one(): return torch.ones(3, 2)
def args(): return (torch.ones(3, 2), 2)
def both(): return [torch.ones(3, 2)], {"scale": 2}
def wrong(): return torch.ones(7, 7)
def raises(): raise ValueError("a\\nmessage\\x1b[31m")
def leaves(): sys.exit(3)
def number(): return 3
number_itself = 3
"""


@pytest.fixture
def models(tmp_path, request):
    """Write a module with a unique name, because Python keeps imported modules."""
    name = f"models_{abs(hash(request.node.nodeid))}"
    (tmp_path / f"{name}.py").write_text(MODELS)
    yield name
    sys.modules.pop(name, None)


def test_convert_writes_what_loads(cli, models):
    done = cli(
        "convert", f"{models}:net", "m.safetensors", "--arg", "width=5", "--arg", 'act="tanh"'
    )
    assert done == Done(0, "m.safetensors: 3 layers\n", "")
    assert str(lg.load_model("m.safetensors")) == str(nn.Sequential(nn.Linear(2, 5), nn.Tanh()))
    assert cli("convert", f"{models}:net", "m.json") == Done(0, "m.json: 3 layers\n", "")
    assert lg.load("m.json")["0"].data["out_features"] == 2


def test_convert_runs_on_inputs(cli, models):
    cli("convert", f"{models}:Sized", "traced.json").refused(
        "a function that gives inputs by --inputs"
    )
    for inputs, scale in (("one", 1), ("args", 2), ("both", 2)):
        done = cli("convert", f"{models}:Sized", "m.safetensors", "--inputs", f"{models}:{inputs}")
        assert done == Done(0, "m.safetensors: 2 layers\n", "")
        rebuilt = lg.load_model("m.safetensors")
        x = torch.randn(4, 2)
        assert bitwise_equal(rebuilt(x, scale), rebuilt.last(x) * scale)


def test_convert_takes_weights_from_files(cli, models, tmp_path):
    from safetensors.torch import save_file

    other = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    torch.save(other.state_dict(), tmp_path / "w.pt")
    save_file(other.state_dict(), tmp_path / "w.safetensors")
    lg.save(lg.to_ir(other), tmp_path / "own.safetensors", other.state_dict())
    for name in ("w.pt", "w.safetensors", "own.safetensors"):
        done = cli("convert", f"{models}:net", "m.safetensors", "--weights", name)
        assert done == Done(0, "m.safetensors: 3 layers\n", "")
        assert bitwise_equal(lg.load_model("m.safetensors")[0].weight, other[0].weight)


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class _Call:
    def __init__(self, function, args):
        self.call = function, args

    def __reduce__(self):
        return self.call


class _Made:
    def __init__(self, cls, state):
        self.made = cls, (), state

    def __reduce__(self):
        return self.made


def test_convert_runs_no_code_of_torch_files(cli, models, tmp_path):
    # If the reader allowed classes of layers, torch would let this file change nn.Linear.
    carrier = _Made(nn.ReLU, {"training": True, "as_subclass": nn.Identity()})
    changing = _Call(
        torch._tensor._rebuild_from_type_v2,
        (nn.Identity(), nn.Linear, (carrier,), {"forward": nn.Tanh()}),
    )
    forward = nn.Linear.forward
    files = {
        "evil.pt": (Evil(tmp_path / "made"), "it holds posix.mkdir, and not tensors alone"),
        "evil_dict.pt": ({"0.weight": Evil(tmp_path / "made")}, "it holds posix.mkdir"),
        "changing.pt": (changing, "nn.modules"),
        "module.pt": (nn.Linear(2, 2), "it holds torch.nn.modules.linear.Linear"),
        "list.pt": ([torch.ones(2)], "it holds no state dict"),
        "nested.pt": ({"model": {"0.weight": torch.ones(2)}}, "'model' is a dict and no tensor"),
        "numbered.pt": ({0: torch.ones(2)}, "0 is a Tensor"),
        "empty.pt": ({}, "it holds no state dict"),
        "other.pt": ({"weight": torch.ones(2)}, "the state dict does not fit"),
    }
    for name, (content, message) in files.items():
        torch.save(content, tmp_path / name)
        done = cli("convert", f"{models}:net", "m.safetensors", "--weights", name)
        done.refused(message)
        cli("convert", name, "m.safetensors").refused(f"{name} is a file", "--weights")
    (tmp_path / "text.pt").write_text("hello")
    done = cli("convert", f"{models}:net", "m.safetensors", "--weights", "text.pt")
    done.refused("text.pt: it holds no state dict of torch.save")
    assert nn.Linear.forward is forward
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "m.safetensors").exists()


REFUSED = {
    "nothing": ([], "Missing command"),
    "no command": (["shwo", "x"], "'shwo'. Did you mean 'show'?; see layergraph --help"),
    "no argument": (["show"], "Missing argument 'file'; see layergraph show --help"),
    "no option": (["show", "x.json", "--colour"], "--colour"),
    "no number": (["show", "x.json", "--depth", "x"], "--depth"),
    "no file": (["show", "x.json"], "x.json: No such file or directory; check the path"),
    "no file to check": (["check", "x.json"], "x.json: No such file or directory"),
    "another suffix": (["show", "x.onnx"], "no model has that suffix; give a .safetensors"),
    "a folder": (["show", "."], "the folder has none of model.safetensors"),
    "a factory without name": (["convert", "M", "m.json"], "write package.module:function"),
    "a path": (["convert", "./a.py:net", "m.json"], "write package.module:function"),
    "a path to a file": (["convert", "M.py", "m.json"], "M.py is a file"),
    "no module": (
        ["convert", "nowhere.at.all:net", "m.json"],
        "there is no module nowhere in this folder",
    ),
    "no function": (["convert", "M:nothing", "m.json"], "the module M has no nothing"),
    "no function but a value": (["convert", "M:number_itself", "m.json"], "is a int; name a"),
    "no model": (["convert", "M:number", "m.json"], "M:number returned a int; name a function"),
    "a factory that raises": (
        ["convert", "M:raises", "m.json"],
        "M:raises failed: ValueError: a (",
        "M.py:23); mend it",
    ),
    "a factory that leaves": (["convert", "M:leaves", "m.json"], "M:leaves failed: SystemExit: 3"),
    "an unknown argument": (
        ["convert", "M:net", "m.json", "--arg", "high=1"],
        "unexpected keyword argument 'high'; mend it",
    ),
    "an argument without value": (["convert", "M:net", "m.json", "--arg", "w"], "write name=value"),
    "an argument in no JSON": (["convert", "M:net", "m.json", "--arg", "w=a"], "'w=\"text\"'"),
    "another suffix to write": (["convert", "M:net", "m.onnx"], "the suffix .safetensors or .json"),
    "no folder to write to": (["convert", "M:net", "a/b/m.json"], "a/b/m.json: No such file"),
    "a file as a folder": (["convert", "M:net", "M.py/m.json"], "M.py/m.json: Not a directory"),
    "weights into JSON": (
        ["convert", "M:net", "m.json", "--weights", "w.pt"],
        "a .json holds no weights",
    ),
    "no weights": (
        ["convert", "M:net", "m.safetensors", "--weights", "w.pt"],
        "w.pt: No such file or directory; check",
    ),
    "inputs that are not there": (
        ["convert", "M:net", "m.json", "--inputs", "M:nothing"],
        "the module M has no nothing",
    ),
    "inputs that do not fit": (
        ["convert", "M:net", "m.json", "--inputs", "M:wrong"],
        "mat1 and mat2 shapes",
    ),
    "no class": (["explain", "M:net"], "M:net is not a class of modules; name a class or a type"),
    "no such class": (["explain", "torch.nn:Nope"], "the module torch.nn has no Nope"),
    "nothing to disable": (["explain", "relu", "--disable", "acme"], "acme"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_trouble_is_one_line(cli, models, tmp_path, name):
    arguments, *said = REFUSED[name]
    before = sorted(tmp_path.iterdir())
    done = cli(
        *[each.replace("M", models) if each != "M.py" else f"{models}.py" for each in arguments]
    )
    done.refused(
        *[
            each.replace("M:", f"{models}:")
            .replace("M.py", f"{models}.py")
            .replace("module M ", f"module {models} ")
            for each in said
            if each != "'shwo'"
        ]
    )
    assert [each for each in sorted(tmp_path.iterdir()) if each.name != "__pycache__"] == before


def test_modules_that_cannot_be_imported_are_trouble(cli, tmp_path):
    (tmp_path / "broken_one.py").write_text("import nowhere_to_be_found")
    (tmp_path / "broken_two.py").write_text("1 / 0")
    (tmp_path / "broken_three.py").write_text("def f(:")
    cli("convert", "broken_one:f", "m.json").refused(
        "importing broken_one: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    )
    cli("convert", "broken_two:f", "m.json").refused("ZeroDivisionError", "broken_two.py:1")
    cli("convert", "broken_three:f", "m.json").refused("SyntaxError")


# --- messages ---

DECIDES = """
import torch
from torch import nn

class Decides(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else x * 2

class Loops(nn.Module):
    def forward(self, x):
        return sum(x)

def one():
    return (torch.ones(3),)

def two():
    return (torch.ones(3), torch.ones(3))
"""

# Remedies that only callers of the Python functions can use.
_PYTHON_ONLY = ("values='", "to_ir(", "give args", "give Limits(")


def test_errors_name_options_of_the_command(cli, tmp_path):
    (tmp_path / "decides_m.py").write_text(DECIDES)
    for model, inputs, values, option in (
        ("Decides", "one", "refuse", "--values both"),
        ("Decides", "two", "both", "--inputs"),
        ("Loops", None, "both", "--inputs"),
    ):
        given = [] if inputs is None else ["--inputs", f"decides_m:{inputs}"]
        done = cli("convert", f"decides_m:{model}", "m.json", *given, "--values", values)
        done.refused(option)
        assert not any(each in done.err for each in _PYTHON_ONLY)


def test_both_ways_of_a_model_are_converted_unless_one_is_assumed(cli, tmp_path):
    (tmp_path / "decides_m.py").write_text(DECIDES)
    call = ["convert", "decides_m:Decides", "m.json", "--inputs", "decides_m:one"]
    for values in ([], ["--values", "both"]):
        assert cli(*call, *values).code == 0
        rebuilt = lg.to_torch(lg.load("m.json"))
        for x in (torch.ones(3), -torch.ones(3)):
            assert torch.equal(rebuilt(x), x if x.sum() > 0 else x * 2)
    assert cli(*call, "--values", "assume").code == 0
    assert "assume_truth" in str(lg.load("m.json"))
    cli(*call, "--values", "guess").refused("both", "assume", "refuse")


def test_the_version_is_told(cli):
    assert cli("--version") == Done(0, f"layergraph {lg.__version__}\n", "")
    assert cli("--help").out.count("--version") == 1


def test_show_says_when_buffers_are_unknown(cli, net, tmp_path):
    content = (tmp_path / "net.safetensors").read_bytes()
    unheard = content.replace(b"batchnorm1d", b"catchnorm1d")
    (tmp_path / "m.safetensors").write_bytes(unheard)
    done = cli("show", "m.safetensors")
    assert done.code == 0
    assert "5 layers, 8 tensors, 25 numbers, 104 bytes; which are buffers is unknown" in done.out
    total = json.loads(cli("show", "m.safetensors", "--json").out)["total"]
    assert (total["numbers"], total["parameters"], total["buffers"]) == (25, None, None)


# --- explain, plugins ---


def test_explain_says_who_answers(cli):
    done = cli("explain", "linear")
    assert done == Done(0, f"{lg.explain('linear')}\n", "")
    assert "  * answers   layergraph-linear 0.1.0 (linear), built-in" in done.out
    done = cli("explain", "torch.nn:Linear", "--json")
    assert json.loads(done.out) == lg.explain(nn.Linear).to_dict()
    assert cli("explain", "unheard").code == 1
    assert "did you mean 'linear'" in cli("explain", "Liner").out
    cli("explain", "torch.nn:Linaer").refused("did you mean 'Linear'")
    assert cli("explain", "linear", "--disable", "layergraph-linear").code == 1


def test_plugins_says_what_is_shadowed_broken_and_disabled(tmp_path):
    install(
        tmp_path,
        "acme",
        """
        from torch import nn
        from layergraph import hookimpl
        from layergraph.layers import Layer

        class ReLU(nn.ReLU):
            pass

        @hookimpl
        def layers():
            return [Layer(ReLU, type="relu", always=["inplace"]), Layer(nn.ELU, type="acme_elu")]

        @hookimpl(wrapper=True)
        def torch_to_ir(module):
            return (yield)

        @hookimpl
        def functions():
            return ["acme.double"]
        """,
    )
    install(tmp_path, "broken", "raise RuntimeError('a\\x1b[31m fault')")
    install(tmp_path, "off", "x = 1")
    environment = os.environ | {"PYTHONPATH": search_path(tmp_path), "LAYERGRAPH_DISABLE": "off"}
    done = spawn("plugins", "--json", env=environment, cwd=tmp_path)
    assert (done.code, done.err) == (1, "")
    form = json.loads(done.out)
    acme, *others = form["plugins"]
    assert acme == {
        "distribution": "acme",
        "version": "1.0",
        "entry_point": "x",
        "builtin": False,
        "hooks": acme["hooks"],
        "layers": [
            {"type": "relu", "class": "acme:ReLU", "shadowed_by": None},
            {"type": "acme_elu", "class": f"{nn.ELU.__module__}:ELU", "shadowed_by": None},
        ],
        "functions": ["acme.double"],
        "commands": [],
        "passes": [],
    }
    hooks = [(each["hook"], each["level"], each["wrapper"]) for each in acme["hooks"]]
    assert ("torch_to_ir", "third party", True) in hooks
    assert ("functions", "third party", False) in hooks
    assert all(each["builtin"] for each in others)
    (activation,) = (each for each in others if each["entry_point"] == "activation")
    shadowed = {each["type"]: each["shadowed_by"] for each in activation["layers"]}
    assert shadowed["relu"] == "acme"
    assert shadowed["elu"] == "acme"  # by its class
    assert shadowed["sigmoid"] is None
    broken, off = sorted(form["left_out"], key=lambda each: each["distribution"])
    assert (broken["distribution"], broken["is_disabled"]) == ("broken", False)
    assert broken["reason"].startswith("RuntimeError: a")
    assert "LAYERGRAPH_DISABLE" in broken["cure"]
    assert (off["distribution"], off["is_disabled"]) == ("off", True)

    done = spawn("plugins", env=environment, cwd=tmp_path)
    assert (done.code, done.err) == (1, "")
    assert done.out.startswith(
        "acme 1.0 (x), third party\n"
        "  layers: relu, acme_elu\n"
        "  hooks: torch_to_ir (wrapper), functions\n"
        "  functions: acme.double\n"
    )
    assert "  shadowed: elu (by acme), relu (by acme)\n" in done.out
    assert r"broken plugin 'x' of broken 1.0 is left out: RuntimeError: a\x1b[31m fault" in done.out
    assert "disabled plugin 'x' of off 1.0 is left out: LAYERGRAPH_DISABLE names it" in done.out


def test_broken_plugins_are_warned_of_in_one_line(tmp_path, net):
    install(tmp_path, "broken", "1 / 0")
    environment = os.environ | {"PYTHONPATH": search_path(tmp_path)}
    done = spawn("check", "net.json", env=environment, cwd=tmp_path)
    assert (done.code, done.out) == (0, "OK: net.json: 5 layers, no weights\n")
    (line,) = done.err.splitlines()
    assert line.startswith("layergraph: warning: plugin 'x' of broken 1.0 is left out: ")


# --- output in a terminal ---

HOSTILE = "\x1b[31mred\x1b]0;title\x07 [bold]b[/] \r\n\u202eturned\x9b2J\ud800\u2028"
ESCAPED = r"\x1b[31mred\x1b]0;title\x07 [bold]b[/] \r\n\u202eturned\x9b2J\ud800\u2028"


def _hostile(tmp_path, value=1):
    ir = Ir(
        [
            Implementation("module", name="root", children={HOSTILE: HOSTILE, "x": "b"}),
            Implementation(HOSTILE, {HOSTILE: HOSTILE, "a": value}, name=HOSTILE),
            Implementation("b", {"[red]": "[/]"}, name="b"),
        ]
    )
    path = tmp_path / f"hostile{value}.json"
    lg.save(ir, path)
    return path


def test_names_in_files_do_not_reach_the_terminal_as_they_are(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    one, other = _hostile(tmp_path), _hostile(tmp_path, 2)
    for arguments in (
        ["show", one],
        ["show", one, "--graph"],
        ["show", one, "--json"],
        ["check", one],
        ["check", one, "--json"],
        ["diff", one, other],
        ["diff", one, other, "--json"],
        ["explain", HOSTILE],
        ["show", HOSTILE],
        ["convert", HOSTILE, "x.json"],
        [HOSTILE],
    ):
        done = cli(*[str(each).replace("\ud800", "") for each in arguments])
        for text in (done.out, done.err):
            bare = text
            for style in ("\x1b[1m", "\x1b[0m", "\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[31m+"):
                bare = bare.replace(style, "")
            assert all(each.isprintable() for each in bare.replace("\n", "")), arguments
            assert "Traceback" not in text
    monkeypatch.delenv("FORCE_COLOR")


def test_names_in_files_are_shown_escaped(cli, tmp_path):
    done = cli("show", _hostile(tmp_path))
    assert f"  {ESCAPED}: {ESCAPED}({ESCAPED}=" in done.out
    assert "  x: b([red]='[/]')\n" in done.out
    assert len(done.out.splitlines()) == 4
    done = cli("show", _hostile(tmp_path), "--graph")
    assert f"{ESCAPED}: {ESCAPED}({ESCAPED}=" in done.out
    assert len(done.out.splitlines()) == 3


def test_pipes_get_whole_plain_lines(tmp_path):
    attributes = {f"attribute_{number}": number for number in range(200)}
    lg.save(Ir([Implementation("x", attributes, name="root")]), tmp_path / "m.json")
    done = spawn("show", "m.json", "--graph", cwd=tmp_path)
    (line,) = done.out.splitlines()
    assert len(line) > 3000
    assert line.isascii()
    done = spawn("show", "m.json", "--graph", cwd=tmp_path, env=os.environ | {"COLUMNS": "20"})
    assert done.out == f"{line}\n"


def test_a_pipe_that_closes_is_no_trouble(tmp_path):
    implementations = [Implementation("x", name=f"l{number}") for number in range(20_000)]
    lg.save(Ir([Implementation("module", name="root"), *implementations]), tmp_path / "m.json")
    # Without a buffer, Python does not notice that a long text was cut off.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    for options in (["--graph"], ["--graph", "--json"]):
        process = subprocess.Popen(
            [*COMMAND, "show", "m.json", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=env,
        )
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141
        process.stderr.close()


def _in_terminal(*arguments, env, cwd):
    """Return the output of the command in a terminal, and its exit code."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(cwd)
        os.execve(COMMAND[0], [*COMMAND, *arguments], env)
    written = b""
    while True:
        try:
            read = os.read(terminal, 65536)
        except OSError:  # Linux raises EIO when the other end is closed
            break
        if not read:
            break
        written += read
    os.close(terminal)
    return written.decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_terminals_get_colours_unless_they_are_turned_off(net, tmp_path):
    lg.save(lg.to_ir(Net(4)), tmp_path / "wide.json")
    plain = {"FORCE_COLOR", "NO_COLOR", "COLORTERM", "CLICOLOR"}
    env = {key: value for key, value in os.environ.items() if key not in plain}
    env["TERM"] = "xterm-256color"
    command = ["diff", "net.json", "wide.json"]
    text, code = _in_terminal(*command, env=env, cwd=tmp_path)
    assert code == 1
    assert "\x1b[33m  ~ attribute out_features: 3 -> 4\x1b[0m" in text
    text, code = _in_terminal(*command, env=env | {"NO_COLOR": "1"}, cwd=tmp_path)
    assert code == 1
    assert "\x1b[33m" not in text
    assert "  ~ attribute out_features: 3 -> 4\r\n" in text


def test_terminals_of_few_characters_get_escapes(tmp_path):
    lg.save(Ir([Implementation("größe", name="root")]), tmp_path / "m.json")
    env = os.environ | {"PYTHONIOENCODING": "ascii:strict"}
    done = spawn("show", "m.json", "--graph", cwd=tmp_path, env=env)
    assert done == Done(0, "root: gr\\xf6\\xdfe()\n", "")


def test_ctrl_c_ends_it(tmp_path):
    (tmp_path / "sleepy.py").write_text(
        "import time\ndef f():\n    print('here', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [*COMMAND, "convert", "sleepy:f", "m.json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    assert process.stdout.readline() == "here\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert (out, err, process.returncode) == ("", "layergraph: interrupted\n", 130)


def test_show_lists_the_guards(cli, tmp_path):
    class First(nn.Module):
        def forward(self, x):
            return x[0] if x.shape[0] > 2 else x

    lg.save(lg.to_ir(First(), (torch.ones(3, 2),)), tmp_path / "first.json")
    assert "operator.gt(size, 2) is True" in cli("show", "--guards", "first.json").out
    listed = json.loads(cli("show", "--guards", "--json", "first.json").out)["guards"]
    assert listed[-1]["says"] == "operator.gt(size, 2) is True"
    assert "if x.shape[0] > 2" in listed[-1]["where"]


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_sizes_of_a_tensor_that_consists_of_parts(cli, tmp_path, layout):
    class Links(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("links", getattr(torch.eye(4), layout)())
            self.lin = nn.Linear(3, 3)

        def forward(self, x):
            return self.lin(self.links @ x)

    module = Links()
    ir = lg.to_ir(module, (torch.randn(4, 3),))
    lg.save(ir, "m.safetensors", module.state_dict())
    lg.save(ir, "m.json")
    totals = [json.loads(cli("show", f"m.{each}", "--json").out)["total"] for each in KINDS]
    assert totals[0] == totals[1]
    # The numbers of the parts, which the file holds: indices of 8 bytes, and values.
    assert totals[0]["bytes"] > 12 * 4 + 4 * (8 + 4)
    assert totals[0]["parameters"] == 12
    for command in ("check", "fingerprint", "view"):
        assert cli(command, "m.safetensors").code == 0


KINDS = ("safetensors", "json")
