"""Subcommands of other plugins: names, exit codes, and failing plugins."""

from __future__ import annotations

import os

import pytest

from plugins.cli.tests.harness import Done, install, search_path, spawn

pytestmark = pytest.mark.slow

GREET = """
from layergraph import hookimpl

def greet(name: str, *, times: int = 1):
    '''Greet one by name.'''
    print(f"{by}: " + " ".join(["hello", name] * times))

@hookimpl({marks})
def commands():
    return [greet]
"""
OF_CLI = "show select check diff convert explain passes run plugins new-plugin".split()
OWN = ["view", "source", "fingerprint", "index", *OF_CLI, "targets"]


def greeting(by, marks="", name="greet"):
    code = GREET.replace("{by}", by).replace("{marks}", marks)
    return code.replace("def greet(", f"def {name}(").replace("[greet]", f"[{name}]")


@pytest.fixture
def call(tmp_path):
    """Run the command with the plugins in a folder."""

    def run(*arguments, **environment):
        env = os.environ | {"PYTHONPATH": search_path(tmp_path)} | environment
        return spawn(*arguments, env=env, cwd=tmp_path)

    return run


def listed(done):
    """Return the names of the subcommands in the help."""
    assert done.code == 0, done
    return [line.split()[0] for line in done.out.partition("Commands:\n")[2].splitlines()]


# --- from a function to a subcommand ---


def test_a_function_is_a_subcommand_with_its_signature_and_its_help(call, tmp_path):
    install(tmp_path, "acme", greeting("acme", name="greet_all"))
    assert listed(call("--help")) == ["greet-all", *OWN]
    assert call("greet-all", "you", "--times", "2") == Done(0, "acme: hello you hello you\n", "")
    shown = call("greet-all", "--help").out
    assert "Greet one by name." in shown
    assert "--times" in shown
    call("greet-all").refused("Missing argument 'name'; see layergraph greet-all --help")
    call("greet-all", "you", "--times", "x").refused("Invalid value for '--times'")


ENDS = {
    "nothing": ("pass", Done(0, "", "")),
    "an exit code": ("return 3", Done(3, "", "")),
    "no": ("return 1", Done(1, "", "")),
    "an exit": ("sys.exit(4)", Done(4, "", "")),
    "an error of layergraph": (
        "raise BuildError('no such layer')",
        Done(2, "", "layergraph: no such layer\n"),
    ),
    "an error of the system": (
        "raise FileNotFoundError(2, 'No such file')",
        Done(2, "", "layergraph: No such file\n"),
    ),
    "an interrupt": ("raise KeyboardInterrupt", Done(130, "", "layergraph: interrupted\n")),
}
ENDING = """
import sys
from layergraph import hookimpl
from layergraph.errors import BuildError

def end():
    {code}

@hookimpl
def commands():
    return [end]
"""


@pytest.mark.parametrize("how", ENDS)
def test_how_a_subcommand_ends(call, tmp_path, how):
    code, expected = ENDS[how]
    install(tmp_path, "acme", ENDING.format(code=code))
    assert call("end") == expected


FAULTS = {
    "1 / 0": ("'end' of acme 1.0 (x) raised ZeroDivisionError: division by zero (", "acme.py:7)"),
    "raise KeyError('a\\x1b[31m')": ("raised KeyError", "acme.py:7)"),
    "return 'done'": ("'end' of acme 1.0 (x) returned a str; it must return an exit code or None",),
    "return 0.5": ("returned a float",),
}


@pytest.mark.parametrize("code", FAULTS)
def test_a_fault_of_a_subcommand_is_one_line_that_names_it(call, tmp_path, code):
    install(tmp_path, "acme", ENDING.format(code=code))
    call("end").refused(*FAULTS[code])


# --- two plugins with one name ---


def test_a_third_party_takes_a_name_from_a_built_in(call, tmp_path):
    install(tmp_path, "acme", greeting("acme", name="show"))
    assert sorted(listed(call("--help"))) == sorted(OWN)
    assert call("show", "me").out == "acme: hello me\n"
    call("show", "me", LAYERGRAPH_DISABLE="acme").refused("me: ")


@pytest.mark.parametrize(
    ("marks", "winner"),
    [
        ({"acme": "", "zeta": ""}, "zeta"),
        ({"acme": "tryfirst=True", "zeta": ""}, "acme"),
        ({"acme": "", "zeta": "trylast=True"}, "acme"),
        ({"acme": "", "layergraph-zeta": "tryfirst=True"}, "acme"),
    ],
)
def test_of_two_plugins_the_one_that_is_asked_first_has_the_name(call, tmp_path, marks, winner):
    for name, mark in marks.items():
        install(tmp_path, name, greeting(name, mark))
    assert call("greet", "you").out == f"{winner}: hello you\n"


def test_what_is_tried_last_takes_no_name_from_a_built_in(call, tmp_path):
    install(tmp_path, "acme", greeting("acme", "trylast=True", name="show"))
    call("show", "me").refused("me: ")


def test_a_name_falls_to_the_next_plugin_if_typer_cannot_read_the_first(call, tmp_path):
    install(tmp_path, "acme", greeting("acme", name="show").replace("name: str", "name: int | str"))
    done = call("show", "me")
    assert done.code == 2
    warning, error = done.err.splitlines()
    assert "the command 'show' of acme 1.0 (x) is skipped" in warning
    assert error.startswith("layergraph: me: ")


def test_plugins_lists_commands_and_who_has_their_names(call, tmp_path):
    install(tmp_path, "acme", greeting("acme", name="show"))
    shown = call("plugins").out
    assert "acme 1.0 (x), third party\n  hooks: commands\n  commands: show\n" in shown
    rest = [name for name in OF_CLI if name != "show"]
    assert f"  commands: {', '.join(rest)}\n" in shown
    assert "  shadowed commands: show (by acme)\n" in shown


# --- a plugin that fails ---

BROKEN = {
    "raises": ("    raise ValueError('gone')", "the hook 'commands' of acme 1.0 (x) raised Value"),
    "exits": ("    raise SystemExit(3)", "of acme 1.0 (x) raised SystemExit: 3"),
    "raises an error of layergraph": (
        "    from layergraph.errors import FileError; raise FileError('no table')",
        "the commands of acme 1.0 (x) are skipped: acme 1.0 (x): no table",
    ),
    "gives a number": ("    return 5", "of acme 1.0 (x) returned 5; it must return functions"),
    "gives a class": ("    return [int]", "returned [<class 'int'>]; it must return functions"),
    "gives a lambda": ("    return [lambda: 0]", "each with a name that starts with a letter"),
    "gives one name twice": (
        "    def One_two(): pass\n    def one_two(): pass\n    return [One_two, one_two]",
        "returned two functions for the command 'one-two'",
    ),
    "has a signature that typer cannot read": (
        "    def odd(x: int | str): pass\n    return [odd]",
        "the command 'odd' of acme 1.0 (x) is skipped: ",
    ),
    "cannot be imported": ("    pass\n1 / 0", "plugin 'x' of acme 1.0 is left out: ZeroDivision"),
    "takes an argument": (
        "    pass\n@hookimpl(specname='commands')\ndef more(model): pass",
        "no argument 'model' is given to it",
    ),
    "wraps": (
        "    pass\n@hookimpl(specname='commands', wrapper=True)\ndef more(): return (yield)",
        "commands: there is nothing to wrap; give a command of the same name",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_plugin_that_fails_breaks_no_other_command(call, tmp_path, how):
    code, said = BROKEN[how]
    head = "from layergraph import hookimpl\n\n@hookimpl\ndef commands():\n"
    install(tmp_path, "acme", head + code)
    install(tmp_path, "beta", greeting("beta"))
    done = call("greet", "you")
    assert (done.code, done.out) == (0, "beta: hello you\n")
    (line,) = done.err.splitlines()
    assert line.startswith("layergraph: warning: ")
    assert said in line
    assert listed(call("--help")) == ["greet", *OWN]
    call("greet", "you", LAYERGRAPH_STRICT="1").refused(said, "LAYERGRAPH_STRICT is set")


def test_no_functions_are_no_commands(call, tmp_path):
    for name, answer in (("acme", "None"), ("beta", "[]"), ("gamma", "iter(())")):
        code = f"from layergraph import hookimpl\n@hookimpl\ndef commands(): return {answer}\n"
        install(tmp_path, name, code)
    done = call("--help")
    assert listed(done) == OWN
    assert done.err == ""


# --- imports ---


@pytest.mark.parametrize(
    ("code", "is_imported"),
    [
        (greeting("acme"), True),
        ("from beta import *\n", True),
        ("from layergraph import hookimpl\n@hookimpl\ndef functions(): return []\n", False),
    ],
)
def test_only_plugins_that_may_have_commands_are_imported(call, tmp_path, code, is_imported):
    (tmp_path / "beta.py").write_text(greeting("beta"))
    install(tmp_path, "acme", code + "open('imported', 'w').close()\n")
    assert listed(call("--help")) == (["greet"] if is_imported else []) + OWN
    assert (tmp_path / "imported").exists() == is_imported
