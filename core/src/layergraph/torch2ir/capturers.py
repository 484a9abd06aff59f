"""Choice of the capturer for a model: a plugin's or the core's. Errors name the plugin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from layergraph.capturing import Capturer, CaptureRequest, Run
from layergraph.errors import CaptureError, LayergraphError, PluginError, Unsupported, first_line
from layergraph.ir import Ir
from layergraph.plugins.loading import way_to_get
from layergraph.torch2ir.asking import first_answer
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph.torch2ir.tracing.symbolic_tracer import SymbolicCapturer
from layergraph.torch2ir.tracing.tracer import Tracer

T = TypeVar("T")


def capturer_for(request: CaptureRequest) -> Capturer:
    """Return the plugin's capturer for a model, or the one of the core for a model without inputs.

    Raises:
        PluginError: a plugin failed, or broke the contract of the hook ``capture``.
        CaptureError: there are example inputs, and no installed plugin captures by running.
    """
    capturer: Capturer | None = first_answer(
        request.hooks, "capture", "for a capturer", Capturer, "a Capturer", request=request
    )
    if capturer is not None:
        return _Contained(capturer)
    if request.has_example:
        raise CaptureError(
            "no installed package captures a model by running it on example inputs; "
            f"{way_to_get('layergraph-capture')}, or convert the model without inputs"
        )
    return SymbolicCapturer(request)


class _Contained(Capturer):
    """A capturer of a plugin, with checks of its answers."""

    def __init__(self, capturer: Capturer) -> None:
        self._capturer = capturer

    def tracer(self) -> Tracer:
        """See :class:`Capturer`."""
        made = self._call("tracer", self._capturer.tracer)
        if not isinstance(made, Tracer):
            raise self._wrong(
                "tracer", f"returned a {type(made).__name__}; it must return a Tracer"
            )
        return made

    def complete(self, trace: Trace, run: Run) -> Trace:
        """See :class:`Capturer`."""
        made = self._call("complete", partial(self._capturer.complete, trace, run))
        if not isinstance(made, Trace):
            raise self._wrong(
                "complete", f"returned a {type(made).__name__}; it must return a Trace"
            )
        return made

    def confirms(self, ir: Ir) -> bool:
        """See :class:`Capturer`."""
        return bool(self._call("confirms", partial(self._capturer.confirms, ir)))

    def faults(self) -> list[Unsupported]:
        """See :class:`Capturer`."""
        found = self._call("faults", self._capturer.faults)
        if not isinstance(found, list) or not all(isinstance(each, Unsupported) for each in found):
            raise self._wrong("faults", "returned something other than a list of Unsupported")
        return found

    def retries(self) -> bool:
        """See :class:`Capturer`."""
        return bool(self._call("retries", self._capturer.retries))

    def finish(self) -> None:
        """See :class:`Capturer`."""
        self._call("finish", self._capturer.finish)

    def _call(self, name: str, method: Callable[[], T]) -> T:
        try:
            return method()
        except (LayergraphError, KeyboardInterrupt):
            raise
        except BaseException as error:
            said = f"raised {type(error).__name__}: {first_line(error)}"
            raise self._wrong(name, said) from error

    def _wrong(self, name: str, said: str) -> PluginError:
        kind = type(self._capturer)
        return PluginError(
            f"{name!r} of the capturer {kind.__module__}.{kind.__qualname__} {said}; mend it, or "
            "disable the plugin"
        )
