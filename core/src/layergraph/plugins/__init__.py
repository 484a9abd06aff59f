"""Discovery, precedence and calls of plugins.

A converter asks in this order:

1. what ``register_override`` added to this converter, the latest first;
2. what ``register`` added to this converter;
3. third-party implementations marked ``tryfirst``;
4. third-party implementations without a mark;
5. the built-ins: those of distributions named ``layergraph-…``, whatever their marks;
6. third-party implementations marked ``trylast``.

Within a level, a converter asks the distribution whose name sorts last first; within a
distribution, the entry point whose name sorts last; within a plugin, its functions before its rows
of layers. The order of ``sys.path`` does not matter. Wrappers run around all implementations.

pluggy loads entry points in another order. So this package loads them itself, and registers each
implementation separately, in the order that makes pluggy ask as listed.
"""

from layergraph.plugins.contract import HookFailure, command_name
from layergraph.plugins.hooks import Hooks, function_homes, kind_homes
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
    "installed_plugins",
    "kind_homes",
    "load_plugins",
    "normalised",
    "warn_of_skipped",
]
