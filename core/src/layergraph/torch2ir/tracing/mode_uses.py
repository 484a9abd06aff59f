"""Uses of ``training`` by the code of a model."""

from __future__ import annotations

from torch import nn

from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.tracing.lines import code_place
from layergraph.torch2ir.tracing.recorder import Recorder


class ModeUses:
    """Records which modules' modes a run reads or sets."""

    def __init__(self, module_index: ModuleIndex, recorder: Recorder) -> None:
        self._module_index = module_index
        self._recorder = recorder
        self._set: set[ModuleInfo] = set()

    def note(self, module: nn.Module, training: bool | None) -> None:
        """Record a use, unless code has set the mode: then later reads do not depend on the caller.

        Args:
            module: the module.
            training: the mode that code reads; None if code sets it. What this changes depends on
                the mode before it.
        """
        module_info = self._module_index.get(module)
        if module_info is None or module_info in self._set:
            return
        args = () if training is None else (training,)
        self._recorder.call("mode", module_info.path, args, {}, code_place())
        if training is None:
            self._set.add(module_info)
