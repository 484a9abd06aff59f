"""Precedence of handlers, line by line of the list in ``layergraph.plugins``, both directions."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import layergraph as lg
from layergraph import Implementation, Ir
from layergraph.errors import BuildError, PluginError, PluginWarning
from layergraph.ir2torch import Ir2Torch
from layergraph.ir2torch import get_default_converter as get_ir2torch
from layergraph.plugins import installed_plugins, load_plugins
from layergraph.torch2ir import Torch2Ir
from layergraph.torch2ir import get_default_converter as get_torch2ir
from tests.sites import HANDLERS, Site, listed, loaded, search_path

# --- the two directions, asked alike ---


def tagged(who: str) -> nn.Module:
    made = nn.Linear(1, 2)
    made.by = who
    return made


def asked_for_ir(converter: Torch2Ir) -> str:
    ir = converter.convert(nn.Linear(1, 2))
    return ir[ir.root].data["by"]


def asked_for_module(converter: Ir2Torch) -> str:
    return converter.convert(Ir([Implementation("linear", name="root")])).by


@dataclass(frozen=True)
class Direction:
    hook: str
    converter: Callable[..., Any]
    default: Callable[[], Any]
    answer: Callable[[str], Any]
    who: Callable[[Any], str]

    def handler(self, who: str) -> Callable[[Any], Any]:
        return lambda _: self.answer(who)


DIRECTIONS = [
    Direction("torch_to_ir", Torch2Ir, get_torch2ir, lambda who: {"by": who}, asked_for_ir),
    Direction("ir_to_torch", Ir2Torch, get_ir2torch, tagged, asked_for_module),
]


@pytest.fixture(params=DIRECTIONS, ids=lambda each: each.hook)
def direction(request: pytest.FixtureRequest) -> Direction:
    return request.param


# --- what plugins say ---

WRAPPERS = """
from layergraph import hookimpl

@hookimpl(wrapper=True, {marks})
def torch_to_ir(module):
    answer = yield
    answer.data["by"] = f"{who}({{answer.data['by']}})"
    return answer

@hookimpl(wrapper=True, {marks})
def ir_to_torch(implementation):
    answer = yield
    answer.by = f"{who}({{answer.by}})"
    return answer
"""

OLD_STYLE_WRAPPERS = """
from layergraph import hookimpl

@hookimpl(hookwrapper=True, {marks})
def torch_to_ir(module):
    answer = (yield).get_result()
    answer.data["by"] = f"{who}({{answer.data['by']}})"

@hookimpl(hookwrapper=True, {marks})
def ir_to_torch(implementation):
    answer = (yield).get_result()
    answer.by = f"{who}({{answer.by}})"
"""

NOT_MINE = """
from layergraph import hookimpl

@hookimpl({marks})
def torch_to_ir(module):
    return None

@hookimpl({marks})
def ir_to_torch(implementation):
    return None
"""


# --- the levels ---

# Highest first. The order of the names is the reverse, so the test fails if a level is ignored.
DISTRIBUTIONS = {
    "tryfirst": ("aaa", "tryfirst=True"),
    "plain": ("bbb", ""),
    "built-in": ("layergraph-ccc", "trylast=True"),
    "trylast": ("zzz", "trylast=True"),
}
RANKED = ["latest override", "earlier override", "register", *DISTRIBUTIONS]


@pytest.mark.parametrize(("higher", "lower"), list(itertools.combinations(RANKED, 2)))
def test_the_higher_level_is_asked_first(
    direction: Direction, site: Site, higher: str, lower: str
) -> None:
    present = (higher, lower)
    for rank in set(present) & DISTRIBUTIONS.keys():
        name, marks = DISTRIBUTIONS[rank]
        site.add(name, marks=marks)
    converter = direction.converter(plugins=loaded(site))
    for rank in ("earlier override", "latest override"):
        if rank in present:
            converter.register_override("linear", direction.handler(rank))
    # Register this one last: the time of registration must not matter.
    if "register" in present:
        converter.register("linear", direction.handler("register"))
    expected = DISTRIBUTIONS[higher][0] if higher in DISTRIBUTIONS else higher
    assert direction.who(converter) == expected


MARKS = ["tryfirst=True", "", "trylast=True"]


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize(
    ("name", "third_party_marks", "wins"),
    [("aaa", "tryfirst=True", True), ("aaa", "", True), ("zzz", "trylast=True", False)],
)
def test_built_ins_stand_where_they_stand_whatever_their_marks(
    direction: Direction, site: Site, marks: str, name: str, third_party_marks: str, wins: bool
) -> None:
    site.add("layergraph-mmm", marks=marks)
    site.add(name, marks=third_party_marks)
    answered = direction.who(direction.converter(plugins=loaded(site)))
    assert answered == (name if wins else "layergraph-mmm")


@pytest.mark.parametrize("spelt", ["Layergraph.Mmm", "layergraph_mmm", "LAYERGRAPH--MMM"])
def test_a_built_in_is_known_by_its_normalised_name(
    direction: Direction, site: Site, spelt: str
) -> None:
    site.add(spelt, marks="tryfirst=True")
    site.add("aaa")
    assert direction.who(direction.converter(plugins=loaded(site))) == "aaa"


@pytest.mark.parametrize("name", ["layergraphics", "my-layergraph-plugin", "layergraph"])
def test_a_name_that_only_resembles_a_built_in_is_third_party(
    direction: Direction, site: Site, name: str
) -> None:
    site.add(name)
    site.add("layergraph-zzz", marks="tryfirst=True")
    assert direction.who(direction.converter(plugins=loaded(site))) == name


def test_the_first_answer_that_is_not_none_stands(direction: Direction, site: Site) -> None:
    site.add("aaa", NOT_MINE, marks="tryfirst=True")
    site.add("bbb", NOT_MINE)
    site.add("layergraph-ccc", marks="trylast=True")
    site.add("zzz", marks="trylast=True")
    converter = direction.converter(plugins=loaded(site))
    converter.register("linear", lambda _: None)
    converter.register_override("linear", lambda _: None)
    assert direction.who(converter) == "layergraph-ccc"


RAISES = HANDLERS.replace("(module):", "(module):\n    raise OSError('gone')").replace(
    "(implementation):", "(implementation):\n    raise OSError('gone')"
)


def test_one_that_raises_ends_it(direction: Direction, site: Site) -> None:
    site.add("bbb", RAISES)
    site.add("aaa")
    with pytest.raises((PluginError, BuildError), match="gone"):
        direction.who(direction.converter(plugins=loaded(site)))


def test_no_handler_is_asked_about_a_module_with_forward_hooks(site: Site) -> None:
    site.add("aaa")
    module = nn.Linear(1, 2)
    assert Torch2Ir(loaded(site)).convert(module)["root"].type == "linear"
    module.register_forward_hook(lambda *_: None)
    assert Torch2Ir(loaded(site)).convert(module)["root"].type == "module"


# --- within a level ---


@pytest.mark.parametrize("marks", MARKS)
@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("aaa", "bbb"),
        ("alpha", "Beta"),
        ("a.z", "A_zz"),
        ("layergraph-aaa", "layergraph-bbb"),
    ],
)
def test_within_a_level_the_distribution_whose_name_sorts_last_is_asked_first(
    direction: Direction, site: Site, earlier: str, later: str, marks: str
) -> None:
    for name in (later, earlier):
        site.add(name, marks=marks)
    assert direction.who(direction.converter(plugins=loaded(site))) == later


def test_among_built_ins_marks_do_not_count(direction: Direction, site: Site) -> None:
    site.add("layergraph-aaa", marks="tryfirst=True")
    site.add("layergraph-bbb", marks="trylast=True")
    assert direction.who(direction.converter(plugins=loaded(site))) == "layergraph-bbb"


def test_within_a_distribution_the_entry_point_whose_name_sorts_last_is_asked_first(
    direction: Direction, site: Site
) -> None:
    site.add("aaa", entry_points=("one", "two", "three"))
    assert direction.who(direction.converter(plugins=loaded(site))) == "aaa:two"


def test_equal_entry_point_names_of_two_distributions_both_load(
    direction: Direction, site: Site
) -> None:
    site.add("aaa")
    site.add("bbb", NOT_MINE)
    plugins = loaded(site)
    assert [(each.distribution, each.entry_point) for each in plugins] == [
        ("aaa", "plugin"),
        ("bbb", "plugin"),
    ]
    converter = direction.converter(plugins=plugins)
    assert converter.hooks.asked(direction.hook)[1:] == ["bbb 1.0 (plugin)", "aaa 1.0 (plugin)"]
    assert direction.who(converter) == "aaa"


# --- wrappers ---


@pytest.mark.parametrize("source", [WRAPPERS, OLD_STYLE_WRAPPERS], ids=["wrapper", "hookwrapper"])
@pytest.mark.parametrize(
    ("wrapper", "marks"),
    [("aaa", "trylast=True"), ("layergraph-aaa", "trylast=True"), ("zzz", ""), ("zzz", MARKS[0])],
)
@pytest.mark.parametrize("inner", RANKED)
def test_wrappers_run_around_every_level(
    direction: Direction, site: Site, source: str, wrapper: str, marks: str, inner: str
) -> None:
    site.add(wrapper, source, marks=marks)
    expected = inner
    if inner in DISTRIBUTIONS:
        name, inner_marks = DISTRIBUTIONS[inner]
        expected = f"inner-{name}"
        site.add(expected, marks=inner_marks)
    converter = direction.converter(plugins=loaded(site))
    if "override" in inner:
        converter.register_override("linear", direction.handler(inner))
    elif inner == "register":
        converter.register("linear", direction.handler(inner))
    assert direction.who(converter) == f"{wrapper}({expected})"


# --- the same on every machine ---


def test_the_order_does_not_depend_on_sys_path(
    direction: Direction, make_site: Callable[[str], Site]
) -> None:
    sites = [make_site(name) for name in ("one", "two", "three")]
    sites[0].add("bbb", WRAPPERS)
    sites[0].add("mmm")
    sites[1].add("ccc", WRAPPERS)
    sites[1].add("nnn")
    sites[2].add("aaa", WRAPPERS)
    sites[2].add("lll")
    seen = {
        direction.who(direction.converter(plugins=loaded(*order)))
        for order in itertools.permutations(sites)
    }
    assert seen == {"ccc(bbb(aaa(nnn)))"}


def test_the_order_does_not_depend_on_how_entry_points_are_listed(
    direction: Direction, site: Site
) -> None:
    for name in ("aaa", "bbb"):
        site.add(name, entry_points=("one", "two"))
    seen = {
        direction.who(direction.converter(plugins=tuple(load_plugins(order))))
        for order in itertools.permutations(listed(site))
    }
    assert seen == {"bbb:two"}


REPORT = """
from torch import nn
from layergraph import Implementation, Ir, to_ir, to_torch
ir = to_ir(nn.Linear(1, 2))
print(ir[ir.root].data["by"], to_torch(Ir([Implementation("linear", name="root")])).by)
"""


def reports(*paths: list[str]) -> list[list[str]]:
    """Return the winner in a new interpreter for each ``sys.path``. They all run at once."""
    running = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", REPORT],
            env={**os.environ, "PYTHONPATH": search_path(*path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for path in paths
    ]
    return [each.communicate()[0].split() for each in running]


@pytest.mark.slow
def test_installed_plugins_are_found_and_sorted_whatever_sys_path_says(tmp_path: Path) -> None:
    """Test all steps, from ``sys.path`` to ``to_ir`` and ``to_torch``, with the real built-ins."""
    folders = []
    for name in ("aaa", "bbb"):
        site = Site(tmp_path / name)
        site.add(name)
        folders.append(str(site.folder))
    assert reports(folders, folders[::-1]) == [["bbb", "bbb"]] * 2


# --- other shapes of plugins ---

SHAPES = {
    "an object": (
        """
from torch import nn
from layergraph import Implementation, hookimpl

class Handlers:
    @hookimpl
    def torch_to_ir(self, module):
        return Implementation("linear", {{"by": "the shape"}})

    @hookimpl
    def ir_to_torch(self, implementation, children):
        made = nn.Linear(1, 2)
        made.by = "the shape"
        return made

handlers = Handlers()
""",
        ":handlers",
    ),
    "other function names": (
        """
from torch import nn
from layergraph import Implementation, hookimpl

@hookimpl(specname="torch_to_ir")
def there(module):
    return Implementation("linear", {{"by": "the shape"}})

@hookimpl(specname="ir_to_torch")
def back():
    made = nn.Linear(1, 2)
    made.by = "the shape"
    return made
""",
        "",
    ),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_plugin_may_be_any_holder_of_hook_implementations(
    direction: Direction, site: Site, shape: str
) -> None:
    source, attribute = SHAPES[shape]
    site.add("zzz", source, attribute=attribute)
    site.add("yyy")
    converter = direction.converter(plugins=loaded(site))
    assert direction.who(converter) == "the shape"
    assert converter.hooks.asked(direction.hook)[1] == "zzz 1.0 (plugin)"


FUNCTIONS = """
from layergraph import hookimpl

@hookimpl({marks})
def functions():
    return ["shared.name", {who!r}]
"""


def test_functions_of_all_plugins_are_named(direction: Direction, site: Site) -> None:
    for name in ("mmm", "aaa", "zzz"):
        site.add(name, FUNCTIONS)
    named = direction.converter(plugins=loaded(site)).hooks.named_functions()
    assert named == {"shared.name", "aaa", "mmm", "zzz"}


BROKEN = {
    "import error": ("import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
    "error while importing": ("raise ValueError('out of luck')", "ValueError: out of luck"),
    "syntax error": ("def", "SyntaxError"),
    "misspelt hook name": (
        HANDLERS.replace("def torch_to_ir", "def torch_to_it"),
        "unknown hook 'torch_to_it'",
    ),
    "unknown hook argument": (
        HANDLERS.replace("torch_to_ir(module)", "torch_to_ir(modul)"),
        "modul",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("name", ["aaa", "Zzz"])
def test_a_broken_plugin_is_left_out_with_one_warning(
    direction: Direction, site: Site, kind: str, name: str
) -> None:
    source, cause = BROKEN[kind]
    site.add(name, source, marks="tryfirst=True", version="3.1.4")
    site.add("mmm")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plugins = loaded(site)
    (warning,) = [each for each in caught if issubclass(each.category, PluginWarning)]
    for said in (name.lower(), "3.1.4", "'plugin'", cause):
        assert said in str(warning.message)
    assert [each.distribution for each in plugins] == ["mmm"]
    assert direction.who(direction.converter(plugins=plugins)) == "mmm"


def test_an_entry_point_that_names_nothing_is_left_out(site: Site) -> None:
    site.add("aaa", attribute=":absent")
    site.add("mmm")
    with pytest.warns(PluginWarning, match=r"aaa 1\.0 .*absent"):
        plugins = loaded(site)
    assert [each.distribution for each in plugins] == ["mmm"]


def test_one_broken_entry_point_leaves_the_others_of_its_distribution(site: Site) -> None:
    broken = "if '{who}' == 'aaa:one': raise OSError('gone')\n" + HANDLERS
    site.add("aaa", broken, entry_points=("one", "two"))
    with pytest.warns(PluginWarning, match="gone"):
        plugins = loaded(site)
    assert [each.entry_point for each in plugins] == ["two"]


# Damaged dist-info folders, from an interrupted pip or another tool: file to content. (Entry points
# that cannot be parsed stop the import of torch itself, so they are not in this list.)
DAMAGED = {
    "no metadata": ("METADATA", None),
    "no version": ("METADATA", "Metadata-Version: 2.1\nName: aaa\n"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_distribution_does_not_stop_the_others(tmp_path: Path, kind: str) -> None:
    site = Site(tmp_path / "site")
    site.add("aaa")
    site.add("mmm")
    file, content = DAMAGED[kind]
    damaged = site.folder / "aaa-1.0.dist-info" / file
    if content is None:
        damaged.unlink()
    else:
        damaged.write_text(content)
    assert reports([str(site.folder)]) == [["mmm", "mmm"]]


PROPERTY = """
from layergraph import hookimpl

class Handlers:
    @property
    def attribute(self):
        raise RuntimeError("not yet")

    @hookimpl
    def torch_to_ir(self, module):
        return None

    @hookimpl
    def ir_to_torch(self, implementation):
        return None

handlers = Handlers()
"""


def test_properties_of_a_plugin_object_are_left_alone(direction: Direction, site: Site) -> None:
    site.add("zzz", PROPERTY, attribute=":handlers")
    site.add("mmm")
    assert direction.who(direction.converter(plugins=loaded(site))) == "mmm"


# --- converters are independent ---


def test_what_is_registered_on_one_converter_concerns_no_other(
    direction: Direction, site: Site
) -> None:
    site.add("aaa")
    plugins = loaded(site)
    untouched, changed = (direction.converter(plugins=plugins) for _ in range(2))
    asked = untouched.hooks.asked(direction.hook)
    changed.register_override("linear", direction.handler("override"))
    changed.register("bilinear", direction.handler("register"))
    later = direction.converter(plugins=plugins)
    assert direction.who(changed) == "override"
    for other in (untouched, later):
        assert direction.who(other) == "aaa"
        assert other.hooks.asked(direction.hook) == asked
        # No handler of this converter has the type yet.
        other.register("bilinear", direction.handler("register"))


def test_registering_on_a_default_converter_changes_nothing_global(direction: Direction) -> None:
    lg.to_ir(nn.Linear(2, 2))  # the first call imports parts of plugins
    before = [(plugin, dict(vars(plugin.implementation))) for plugin in installed_plugins()]
    changed = direction.default()
    changed.register_override("linear", direction.handler("override"))
    assert direction.who(changed) == "override"
    fresh = direction.default()
    assert fresh is not changed
    assert not list(fresh.find("linear"))
    assert [(plugin, dict(vars(plugin.implementation))) for plugin in installed_plugins()] == before


def test_plugins_of_one_converter_are_not_asked_by_another(
    direction: Direction, make_site: Callable[[str], Site]
) -> None:
    one, two = make_site("one"), make_site("two")
    one.add("aaa")
    two.add("bbb")
    converters = [direction.converter(plugins=loaded(each)) for each in (one, two)]
    assert [direction.who(each) for each in converters] == ["aaa", "bbb"]
