"""Loading of plugins: broken, outdated and disabled ones are skipped."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, PluginError, PluginWarning
from layergraph.ir2torch import Ir2Torch
from layergraph.ir2torch import get_default_converter as get_ir2torch
from layergraph.plugins import discovered, installed_plugins, loading
from layergraph.torch2ir import Torch2Ir
from layergraph.torch2ir import get_default_converter as get_torch2ir
from tests.sites import HANDLERS, Site, loaded, search_path

PLAIN = HANDLERS.format(marks="", who="the plugin").replace("{", "{{").replace("}", "}}")

# --- what is refused, and what is said of it ---

REFUSED = {
    "another version of the hooks": (
        "layergraph_hooks = 2\n" + PLAIN,
        "version 2 of the hooks, and this layergraph has version 1",
    ),
    "an argument with a default": (
        PLAIN.replace("torch_to_ir(module)", "torch_to_ir(module, deep=True)"),
        "torch_to_ir: the argument 'deep' has a default",
    ),
    "an argument of the hook with a default": (
        PLAIN.replace("ir_to_torch(implementation)", "ir_to_torch(implementation, children=None)"),
        "ir_to_torch: the argument 'children' has a default",
    ),
    "an argument that is not given": (
        PLAIN.replace("torch_to_ir(module)", "torch_to_ir(module, path)"),
        "torch_to_ir: no argument 'path' is given to it; take module",
    ),
    "any arguments": (
        PLAIN.replace("torch_to_ir(module)", "torch_to_ir(*modules)"),
        "no argument '*modules' is given",
    ),
    "an argument by name alone": (
        PLAIN.replace("torch_to_ir(module)", "torch_to_ir(*, module)"),
        "no argument 'module' is given",
    ),
    "a misspelt hook": (
        PLAIN.replace("def torch_to_ir", "def torch2ir"),
        "unknown hook 'torch2ir'; the hooks are torch_to_ir, ir_to_torch, functions, layers",
    ),
    "no hook": ("x = 1", "it implements no hook"),
    "a wrapper that does not yield": (
        "from layergraph import hookimpl\n@hookimpl(wrapper=True)\ndef torch_to_ir(module): pass",
        "a wrapper has to yield once",
    ),
    "a wrapper of rows": (
        "from layergraph import hookimpl\n@hookimpl(wrapper=True)\ndef layers(): yield",
        "there is nothing to wrap",
    ),
    "a wrapper of commands": (
        "from layergraph import hookimpl\n@hookimpl(wrapper=True)\ndef commands(): yield",
        "there is nothing to wrap; give a command of the same name",
    ),
    "rows that are none": (
        (
            "from torch import nn\nfrom layergraph import hookimpl\n"
            "@hookimpl\ndef layers(): return [nn.Linear]"
        ),
        "give rows, layergraph.layers.Layer(cls)",
    ),
    "no rows": (
        "from layergraph import hookimpl\n@hookimpl\ndef layers(): pass",
        "it returned None; give rows",
    ),
    "rows that fail": (
        "from layergraph import hookimpl\n@hookimpl\ndef layers(): raise OSError('gone')",
        "OSError: gone",
    ),
    "two rows for one class": (
        (
            "from torch import nn\nfrom layergraph import hookimpl\n"
            "from layergraph.layers import Layer\n"
            "@hookimpl\ndef layers(): return [Layer(nn.ReLU), Layer(nn.ReLU, type='other')]"
        ),
        "two rows for ReLU or for the type 'other'",
    ),
    "a row for no module": (
        (
            "from layergraph import hookimpl\nfrom layergraph.layers import Layer\n"
            "@hookimpl\ndef layers(): return [Layer(int)]"
        ),
        "is no class of modules",
    ),
    "a row of arguments that there are not": (
        (
            "from torch import nn\nfrom layergraph import hookimpl\n"
            "from layergraph.layers import Layer\n"
            "@hookimpl\ndef layers(): return [Layer(nn.ReLU, always=['slope'])]"
        ),
        "ReLU takes no slope; it takes inplace",
    ),
    "an argument that has no name": (
        (
            "from torch import nn\nfrom layergraph import layer\n"
            "@layer\nclass Stack(nn.Module):\n    def __init__(self, *layers): super().__init__()"
        ),
        "Stack takes '*layers', which has no name",
    ),
    "the type of a layer of torch": (
        "from torch import nn\nfrom layergraph import layer\n@layer\nclass Linear(nn.Module): pass",
        "would have the type of a layer of torch; give it another one",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_plugin_that_misuses_the_hooks_is_left_out_with_one_warning(site: Site, kind: str):
    source, cause = REFUSED[kind]
    site.add("aaa", source, version="3.1.4")
    site.add("mmm")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plugins = loaded(site)
    (warning,) = [str(each.message) for each in caught if each.category is PluginWarning]
    for said in ("plugin 'plugin' of aaa 3.1.4", cause, "mend aaa", "LAYERGRAPH_DISABLE=aaa"):
        assert said in warning
    assert [each.distribution for each in plugins] == ["mmm"]


def test_a_plugin_says_for_which_hooks_it_was_written(site: Site):
    site.add("aaa", "layergraph_hooks = 1\n" + PLAIN)
    assert [each.distribution for each in loaded(site)] == ["aaa"]


def test_an_optional_hook_may_be_unknown(site: Site):
    later = "\n@hookimpl(optionalhook=True)\ndef a_hook_to_come(model): pass\n"
    site.add("aaa", PLAIN + later)
    assert [each.distribution for each in loaded(site)] == ["aaa"]


def test_strictly_a_broken_plugin_is_an_error(site: Site, monkeypatch: pytest.MonkeyPatch):
    site.add("aaa", "import no_such_module_anywhere")
    monkeypatch.setenv("LAYERGRAPH_STRICT", "1")
    with pytest.raises(PluginError, match=r"of aaa 1\.0 is left out: .*no_such_module_anywhere"):
        loaded(site)
    monkeypatch.setenv("LAYERGRAPH_STRICT", "0")
    with pytest.warns(PluginWarning, match=r"aaa 1\.0"):
        loaded(site)


# --- disabling, by an argument and by the environment ---

CONVERTERS = [Torch2Ir, Ir2Torch, get_torch2ir, get_ir2torch]


def asked(converter: Torch2Ir | Ir2Torch) -> set[str | None]:
    return {each.plugin.distribution for each in converter.hooks.implementations}


@pytest.mark.parametrize("make", CONVERTERS)
def test_an_argument_of_a_converter_disables_plugins(make: Callable[..., Torch2Ir | Ir2Torch]):
    everybody = asked(make())
    some = asked(make(disable=["layergraph-linear", "Layergraph.CONV"]))
    assert everybody - some == {"layergraph-linear", "layergraph-conv"}
    assert asked(make(disable="layergraph-linear")) == everybody - {"layergraph-linear"}
    assert asked(make()) == everybody


@pytest.mark.parametrize("make", [Torch2Ir, Ir2Torch])
def test_a_star_disables_all_third_party_plugins(make: type[Torch2Ir | Ir2Torch], site: Site):
    for name in ("aaa", "layergraph-bbb", "zzz"):
        site.add(name)
    plugins = loaded(site)
    assert asked(make(plugins, disable=["*"])) == {"layergraph-bbb"}
    assert asked(make(plugins, disable=["*", "layergraph-bbb"])) == set()


@pytest.mark.parametrize("make", CONVERTERS)
def test_disabling_what_is_not_there_is_an_error(make: Callable[..., object]):
    with pytest.raises(PluginError, match=r"no plugin of acme-linaer is there to be disabled"):
        make(disable=["acme-linaer"])


def test_the_environment_disables_plugins(monkeypatch: pytest.MonkeyPatch):
    everybody = {each.distribution for each in installed_plugins()}
    monkeypatch.setenv("LAYERGRAPH_DISABLE", "layergraph_linear, layergraph-conv,")
    assert {each.distribution for each in installed_plugins()} == everybody - {
        "layergraph-linear",
        "layergraph-conv",
    }
    ir = Torch2Ir().convert(nn.Linear(1, 2))
    assert ir[ir.root].type == "module"  # no handler answers, so the module is traced through
    with pytest.raises(BuildError, match="pip install layergraph-linear"):
        Ir2Torch().convert(lg.Ir([lg.Implementation("linear", name="root")]))
    left_out = {each.distribution: each for each in discovered().left_out}
    assert left_out.keys() == {"layergraph-linear", "layergraph-conv"}
    assert all(each.is_disabled for each in left_out.values())
    assert "LAYERGRAPH_DISABLE names it" in str(left_out["layergraph-conv"])


def test_a_name_in_the_environment_that_is_not_installed_is_pointed_out(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv("LAYERGRAPH_DISABLE", "acme-linaer-in-the-environment")
    with pytest.warns(PluginWarning, match="acme-linaer-in-the-environment is left out: no such"):
        installed_plugins()


# --- all of it as a user meets it ---

REPORT = """
import json, sys, warnings
warnings.simplefilter("always")
import layergraph
before = sorted(name for name in sys.modules if name.startswith((sys.argv[1], "layergraph_")))
from torch import nn
with warnings.catch_warnings(record=True) as caught:
    try:
        who = layergraph.to_ir(nn.Linear(1, 2))["root"].data.get("by")
        for _ in range(3):
            layergraph.torch2ir.Torch2Ir()
    except Exception as error:
        who = f"{type(error).__name__}: {error}"
print(json.dumps({
    "before": before,
    "who": who,
    "warnings": [str(each.message) for each in caught if "Plugin" in each.category.__name__],
    "imported": sorted(name for name in sys.modules if name.startswith(sys.argv[1])),
}))
"""


def report(site: Site, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", REPORT, site.folder.parent.name],
        env={**os.environ, "PYTHONPATH": search_path(site.folder), **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_plugins_are_imported_when_they_are_asked_and_a_disabled_one_never(tmp_path: Path):
    site = Site(tmp_path / "site")
    site.add("aaa")
    site.add("bbb")
    site.add("ccc", "import no_such_module_anywhere")
    running = {
        "": report(site),
        "bbb,ccc": report(site, LAYERGRAPH_DISABLE="bbb,ccc"),
        "*": report(site, LAYERGRAPH_DISABLE="*"),
        "strict": report(site, LAYERGRAPH_STRICT="1"),
    }
    said = {key: json.loads(each.communicate()[0]) for key, each in running.items()}
    assert all(each["before"] == [] for each in said.values())
    assert said[""]["who"] == "bbb"
    assert len(said[""]["warnings"]) == 1
    assert "ccc 1.0" in said[""]["warnings"][0]
    assert said["bbb,ccc"]["who"] == "aaa"
    assert said["bbb,ccc"]["warnings"] == []
    assert said["bbb,ccc"]["imported"] == [f"{tmp_path.name}_aaa_plugin"]
    assert said["*"]["who"] is None
    assert said["*"]["imported"] == []
    assert said["strict"]["who"].startswith("PluginError: plugin 'plugin' of ccc 1.0 is left out")


@pytest.mark.slow
def test_a_folder_that_is_twice_on_sys_path_counts_once():
    code = (
        "import sys; sys.path += sys.path\n"
        "from layergraph.plugins import installed_plugins\n"
        "import layergraph as lg; from torch import nn; lg.to_torch(lg.to_ir(nn.Linear(1, 1)))\n"
        "names = [(each.distribution, each.entry_point) for each in installed_plugins()]\n"
        "sys.exit(len(names) != len(set(names)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- one distribution in several places ---


def versions(monkeypatch: pytest.MonkeyPatch, *path: object) -> list[str]:
    """Return the versions of the plugin ``aaa`` that are found on a path, each once."""
    monkeypatch.setattr(sys, "path", list(path))
    found, _ = loading._look.__wrapped__()
    return [each.version for each in found if each.distribution == "aaa"]


def zipped(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder))


def as_egg_info(folder: Path) -> Path:
    (info,) = folder.glob("*.dist-info")
    (info / "METADATA").rename(info / "PKG-INFO")
    info.rename(folder / "aaa.egg-info")
    return folder


def in_an_egg(folder: Path) -> Path:
    (info,) = folder.glob("*.dist-info")
    egg = folder / "aaa-1.0-py3.11.egg"
    egg.mkdir()
    (info / "METADATA").rename(info / "PKG-INFO")
    info.rename(egg / "EGG-INFO")
    return egg


def without_entry_points(folder: Path) -> Path:
    (info,) = folder.glob("*.dist-info")
    (info / "entry_points.txt").unlink()
    return folder


@pytest.mark.parametrize(
    "made", [Path, str, zipped, as_egg_info, in_an_egg, without_entry_points], ids=range(6)
)
def test_the_first_of_a_name_on_sys_path_counts(
    made: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Site(tmp_path / "one"), Site(tmp_path / "other")
    one.add("aaa", version="1.0")
    other.add("aaa", version="2.0")
    first, second = str(made(one.folder)), str(other.folder)
    monkeypatch.chdir(tmp_path)
    alone = [] if made is without_entry_points else ["1.0"]
    assert versions(monkeypatch, first, second) == alone
    assert versions(monkeypatch, first, f"{first}/", second) == alone
    assert versions(monkeypatch, second, first) == ["2.0"]
    assert versions(monkeypatch, "other", first, second) == ["2.0"]


def test_what_python_cannot_import_from_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "site")
    site.add("aaa")
    (tmp_path / "file").touch()
    leftover = tmp_path / "leftover"
    (leftover / "aaa-3.0.dist-info").mkdir(parents=True)
    odd = (None, 3, b"x", [], leftover, tmp_path / "site", str(tmp_path / "file"))
    assert versions(monkeypatch, *odd) == []
    assert versions(monkeypatch, *odd, str(leftover), str(site.folder)) == ["1.0"]


READY = """
import sys
from layergraph.ir2torch import get_default_converter as get_ir2torch
from layergraph.torch2ir import get_default_converter as get_torch2ir
get_torch2ir(), get_ir2torch()
print(*sorted(name for name in sys.modules if name.startswith("layergraph")))
"""


@pytest.mark.slow
def test_a_converter_is_ready_before_what_captures_and_builds_is_imported():
    done = subprocess.run([sys.executable, "-c", READY], capture_output=True, text=True, check=True)
    imported = done.stdout.split()
    assert "layergraph.plugins.hooks" in imported
    needless = "torch2ir.pipeline torch2ir.folding.fold ir2torch.build functions state"
    for name in needless.split():
        assert f"layergraph.{name}" not in imported
    for plugin in ("layergraph_torchvision", "layergraph_transformers"):
        assert plugin in imported
        assert f"{plugin}.inputs" not in imported
