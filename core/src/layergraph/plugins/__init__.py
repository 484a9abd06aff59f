"""Finding, sorting and asking plugins.

Who is asked first:

1. what ``register_override`` added to this converter, the latest first;
2. what ``register`` added to this converter;
3. third-party implementations marked ``tryfirst``;
4. third-party implementations without a mark;
5. the built-ins: those of distributions named ``layergraph-…``, whatever their marks;
6. third-party implementations marked ``trylast``.

Within a level the distribution whose name sorts last is asked first, in a distribution the entry
point whose name sorts last, and in a plugin its own functions before its rows of layers:
``sys.path`` has no say. Wrappers run around all of them.

pluggy's own loading of entry points gives no such order, so this package loads them itself and
registers every implementation for itself, in the order that makes pluggy ask them as listed.
"""

from layergraph.plugins.commands import Command, installed_commands
from layergraph.plugins.contract import HookFailure, command_name
from layergraph.plugins.hooks import Hooks, function_homes
from layergraph.plugins.listing import installed_answers
from layergraph.plugins.loading import (
    Discovered,
    SkippedPlugin,
    chosen_plugins,
    discovered,
    installed_plugins,
    load_plugins,
    normalised,
    warn_of_skipped,
)
from layergraph.plugins.plugin import BUILTIN_PREFIX, HookImplementation, Level, Plugin
from layergraph.plugins.torch_nn_families import distribution_for

__all__ = [
    "BUILTIN_PREFIX",
    "Command",
    "Discovered",
    "HookFailure",
    "HookImplementation",
    "Hooks",
    "Level",
    "Plugin",
    "SkippedPlugin",
    "chosen_plugins",
    "command_name",
    "discovered",
    "distribution_for",
    "function_homes",
    "installed_answers",
    "installed_commands",
    "installed_plugins",
    "load_plugins",
    "normalised",
    "warn_of_skipped",
]
