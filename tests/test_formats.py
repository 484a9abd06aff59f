"""The hook ``formats``: the plugin that reads and writes a suffix."""

from __future__ import annotations

import functools
import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph import Format, Ir, hookimpl
from layergraph.errors import ArgumentError, CaptureError, FileError, PluginError, PluginWarning
from layergraph.plugins import HookFailure, Plugin, installed_plugins
from layergraph.torch2ir import Torch2Ir
from layergraph_files.api import installed_formats

MODEL = nn.Linear(2, 2)
IR = lg.to_ir(MODEL)


def plugin(answer: Any, distribution: str = "acme-odd") -> Plugin:
    holder = type("Holder", (), {"formats": staticmethod(hookimpl(answer))})()
    return Plugin(distribution, "1.0", "odd", holder)


@pytest.fixture
def installing(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(*plugins: Plugin) -> None:
        everything = (*installed_plugins("formats"), *plugins)
        monkeypatch.setattr("layergraph.plugins.listing.installed_plugins", lambda _: everything)

    return install


class Notes:
    """A format that records the arguments of its calls."""

    def __init__(self, suffix: str = ".odd") -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.format = Format(suffix, "odd", self.write, self.read, self.build)

    def write(self, ir: Ir, path: Any, state_dict: Any, *, level: int = 0) -> None:
        self.calls.append(("write", ir, path, state_dict, level))

    def read(self, path: Any) -> Ir:
        self.calls.append(("read", path))
        return IR

    def build(self, path: Any, *, device: Any = None, dtype: Any = None) -> nn.Module:
        self.calls.append(("build", path, device, dtype))
        return MODEL


def test_a_plugin_adds_a_format(installing: Any) -> None:
    notes = Notes()
    installing(plugin(lambda: [notes.format]))
    weights = MODEL.state_dict()
    lg.save(IR, "model.odd", weights, level=3)
    assert lg.load(Path("folder") / "model.ODD") is IR
    assert lg.load_model("model.odd", dtype=torch.float64) is MODEL
    assert notes.calls == [
        ("write", IR, "model.odd", weights, 3),
        ("read", Path("folder") / "model.ODD"),
        ("build", "model.odd", None, torch.float64),
    ]


def test_a_third_party_comes_before_the_built_in(installing: Any, tmp_path: Path) -> None:
    notes = Notes(".safetensors")
    installing(plugin(lambda: [notes.format]))
    lg.save(IR, tmp_path / "model.safetensors")
    assert [call[0] for call in notes.calls] == ["write"]
    assert not list(tmp_path.iterdir())


def test_a_plugin_named_as_a_built_in_stands_with_the_built_ins(installing: Any) -> None:
    first, last = Notes(".odd"), Notes(".odd")
    installing(
        plugin(lambda: [first.format], "layergraph-odd"),
        plugin(lambda: [last.format], "acme-odd"),
    )
    assert installed_formats()[".odd"] is last.format


def test_the_longest_suffix_decides(installing: Any) -> None:
    short, long = Notes(".odd"), Notes(".very.odd")
    installing(plugin(lambda: [short.format, long.format]))
    lg.load("a.very.odd")
    lg.load("a.odd")
    assert [call[1] for call in long.calls] == ["a.very.odd"]
    assert [call[1] for call in short.calls] == ["a.odd"]


def test_what_a_format_cannot_do_is_said(installing: Any) -> None:
    installing(plugin(lambda: [Format(".odd", "odd", write=Notes().write)]))
    with pytest.raises(
        FileError, match=r"'a.odd': no installed package reads files of that suffix"
    ):
        lg.load("a.odd")
    with pytest.raises(FileError, match=r"builds a model from files of that suffix"):
        lg.load_model("a.odd")


@pytest.mark.parametrize("use", [lg.load, lg.load_model, lambda path, **o: lg.save(IR, path, **o)])
@pytest.mark.parametrize("suffix", [".odd", ".safetensors", ".json"])
def test_an_unknown_option_is_an_argument_error(installing: Any, use: Any, suffix: str) -> None:
    installing(plugin(lambda: [Notes().format]))
    with pytest.raises(ArgumentError, match=r"'levle' is not an option for \.\w+; it takes "):
        use(f"a{suffix}", levle=3)


@pytest.mark.parametrize("suffix", ["", ".odd", ".bin", ".tflite"])
def test_a_suffix_that_nothing_has_is_an_error_that_lists_suffixes(
    suffix: str, tmp_path: Path
) -> None:
    for use in (lg.load, lg.load_model, lambda path: lg.save(IR, path)):
        with pytest.raises(FileError, match=r"\.safetensors"):
            use(tmp_path / f"model{suffix}")
    assert not list(tmp_path.iterdir())


def odd() -> Format:
    return Notes().format


@pytest.mark.parametrize(
    "answer",
    [
        lambda: 5,
        lambda: ".odd",
        lambda: [".odd"],
        lambda: [Format(".ODD", "")],
        lambda: [Format(None, "")],  # type: ignore[arg-type]
        lambda: [Format(".odd", "", read=5)],  # type: ignore[arg-type]
        lambda: [odd(), odd()],
        lambda: itertools.repeat(odd()),
        lambda: sys.exit(2),
        lambda: 1 / 0,
    ],
    ids=range(10),
)
def test_a_plugin_that_gives_something_else_is_skipped_by_name(
    answer: Any, installing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = plugin(answer)
    (implementation,) = broken.hooks
    with pytest.raises(HookFailure, match=r"'formats' of acme-odd 1.0"):
        implementation.ask()
    installing(broken, plugin(lambda: [odd()], "acme-other"))
    with pytest.warns(PluginWarning, match=r"the formats of acme-odd 1.0 \(odd\) are skipped"):
        assert {".odd", ".safetensors", ".json"} <= installed_formats().keys()
    monkeypatch.setenv("LAYERGRAPH_STRICT", "1")
    with pytest.raises(PluginError, match="formats of acme-odd"):
        installed_formats()


def test_a_wrapper_is_refused() -> None:
    holder = type("Holder", (), {})()
    holder.formats = hookimpl(wrapper=True)(lambda: (yield))
    with pytest.raises(PluginError, match="give a format for the same suffix"):
        Plugin("acme-odd", "1.0", "odd", holder).hooks  # noqa: B018


def test_to_read_a_structure_imports_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    lg.save(IR, path)
    code = f"import sys, layergraph as lg; lg.load({str(path)!r}); print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "False"


def test_a_disabled_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names = "layergraph-files,layergraph-capture"
    monkeypatch.setenv("LAYERGRAPH_DISABLE", names)
    with pytest.raises(FileError, match="LAYERGRAPH_DISABLE names layergraph-files: change it"):
        lg.load("a.json")
    with pytest.raises(CaptureError, match="LAYERGRAPH_DISABLE names layergraph-capture: change"):
        Torch2Ir().convert(MODEL, (torch.ones(1, 2),))


# --- functions that do not keep their contract ---


class Fails:
    def __fspath__(self) -> str:
        raise RuntimeError("gone")


@pytest.mark.parametrize("path", [b"a.odd", 3, None, Fails()], ids=range(4))
def test_what_is_no_path_is_an_argument_error_for_every_format(
    path: Any, installing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("layergraph.plugins.listing.installed_plugins", lambda _: ())
    for use in (lg.load, lg.load_model, lambda path: lg.save(IR, path)):
        with pytest.raises(ArgumentError, match=r"path.*: (load|load_model|save)\("):
            use(path)


def raising(error: BaseException) -> Any:
    raise error


def no_ir(path: Any) -> Any:
    return path


class Reader:
    """A reader that is a class, not a function."""

    def __init__(self, path: Any) -> None:
        self.path = path


@pytest.mark.parametrize(
    ("read", "said"),
    [
        (lambda path: raising(ValueError("boom")), "raised ValueError: boom"),
        (lambda path: sys.exit(3), "raised SystemExit: 3"),
        (no_ir, "returned a str; it must return a Ir"),
        (functools.partial(no_ir), "returned a str; it must return a Ir"),
        (Reader, "returned a Reader; it must return a Ir"),
        (lambda: IR, "cannot be called: too many positional arguments"),
        (dict, "raised ValueError"),
        (min, "returned a str"),
    ],
    ids=range(8),
)
def test_a_function_that_breaks_its_contract_is_an_error_that_names_it(
    read: Any, said: str, installing: Any
) -> None:
    installing(plugin(lambda: [Format(".odd", "odd", read=read)]))
    with pytest.raises(PluginError, match=rf"'read' for '.odd' of acme-odd 1.0 \(odd\) {said}"):
        lg.load("a.odd")


def test_a_function_that_builds_no_module_is_an_error_that_names_it(installing: Any) -> None:
    installing(plugin(lambda: [Format(".odd", "odd", build=no_ir)]))
    with pytest.raises(
        PluginError, match=r"'build' for '.odd'.* returned a str; it must return a Module"
    ):
        lg.load_model("a.odd")


def test_an_error_of_the_system_is_a_file_error(installing: Any, tmp_path: Path) -> None:
    installing(plugin(lambda: [Format(".odd", "odd", read=open)]))
    with pytest.raises(FileError, match=r"a.odd': No such file or directory"):
        lg.load(tmp_path / "a.odd")


def test_options_are_those_that_the_function_takes(installing: Any) -> None:
    calls: list[Any] = []

    def read(path: Any, /, **options: Any) -> Ir:
        calls.append(options)
        return IR

    def write(ir: Ir, file: Any, state_dict: Any, *, level: int) -> None:
        calls.append(level)

    installing(plugin(lambda: [Format(".odd", "odd", write, read, lambda path: MODEL)]))
    lg.load("a.odd", level=3)
    lg.save(IR, "a.odd", level=4)
    assert lg.load_model("a.odd") is MODEL
    assert calls == [{"level": 3}, 4]
    with pytest.raises(ArgumentError, match=r"'dtype' is not an option for .odd; it takes none"):
        lg.load_model("a.odd", dtype=torch.float64)
    with pytest.raises(ArgumentError, match=r"'file' is not an option for .odd; it takes level"):
        lg.save(IR, "a.odd", level=4, file=3)
    with pytest.raises(ArgumentError, match=r"do not fit: missing a required .*'level'"):
        lg.save(IR, "a.odd")
