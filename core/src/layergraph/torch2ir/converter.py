"""From a PyTorch module to its IR."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import nn

from layergraph.collection import without_collection
from layergraph.errors import (
    CaptureError,
    LayergraphError,
    PluginError,
    Unsupported,
    first_line,
)
from layergraph.functions import Functions
from layergraph.ir import ROOT, Implementation, Ir, TensorSpec, check_attributes
from layergraph.plugins import Hooks, Plugin, chosen_plugins
from layergraph.registration import Registry
from layergraph.state import Memory, all_tensors, describe, own_tensors
from layergraph.torch2ir.arguments import Arguments
from layergraph.torch2ir.calls import Trace
from layergraph.torch2ir.capture import ONE_AT_A_TIME, unsupported
from layergraph.torch2ir.constants import Constants
from layergraph.torch2ir.modes import Modes, capture
from layergraph.torch2ir.own import Own, changes_its_call
from layergraph.torch2ir.questions import Values
from layergraph.torch2ir.repeat import steady
from layergraph.torch2ir.replay import Replaying
from layergraph.torch2ir.run import Running
from layergraph.torch2ir.survey import Survey, Surveyed
from layergraph.torch2ir.trace import Tracing

if TYPE_CHECKING:
    from layergraph.plugins.explanation import Explanation


class Torch2Ir(Registry):
    """Converts modules to IR, by the handlers of the installed plugins and its own.

    A handler that is registered here takes a module and returns a dict of attributes, an
    :class:`~layergraph.Implementation`, or None for "not mine". It is registered for a class, which
    has to be the module's exact class, or for the name of one: as it is (``"CustomLinear"``), in
    lower case (``"customlinear"``), or with underscores (``"custom_linear"``). Attributes may name
    the ``type``; else it is that name, or, where the handler is registered for a class, the class's
    name in lower case.

    Args:
        plugins: the plugins to ask; None for all that are installed.
        disable: the distributions whose plugins are not asked; ``*`` for all third-party ones.

    Raises:
        PluginError: nothing is there to be disabled under such a name, or an installed plugin
            cannot be used and ``LAYERGRAPH_STRICT`` is set.
    """

    def __init__(
        self, plugins: tuple[Plugin, ...] | None = None, *, disable: Collection[str] = ()
    ) -> None:
        super().__init__(takes_classes=True)
        self._own = Own(self)
        self.hooks = Hooks(chosen_plugins(plugins, disable), self._own)

    def convert(
        self,
        model: nn.Module,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        values: Values = "refuse",
        modes: Modes = "both",
    ) -> Ir:
        """Turn a model into its IR.

        With example inputs the model runs once, and what it does is recorded. Without, it is traced
        on symbols, which serves models whose code does not look at its inputs.

        Args:
            model: the model, in either mode. It is left as it was.
            args: the positional arguments of an example call, as a tuple.
            kwargs: its arguments by name. What is not a tensor is fixed at what it is here, as is
                what is left at its default.
            values: what to do where the model decides by a number in a tensor: ``"refuse"``, or
                ``"assume"`` that it is the same for all inputs, which the rebuilt model checks.
            modes: what the IR is to hold where the model's code asks whether it is training:
                ``"both"`` modes, or its ``"own"``, the one that it is in, which is quicker and
                which the rebuilt model is then held to.

        Returns:
            The IR. It holds no parameters and no persistent buffers: those are in the model's state
            dict.

        Raises:
            CaptureError: the model computes something that a graph cannot hold, or decides by what
                only inputs would tell.
            PluginError: a handler failed, or broke its contract.
        """
        if not isinstance(model, nn.Module):
            raise CaptureError(f"{model!r} is no torch.nn.Module; convert a module")
        # Another capture of the same model may have changed its modes for a while.
        with ONE_AT_A_TIME, without_collection():
            return self._convert(model, args, kwargs, values, modes)

    def _convert(
        self,
        model: nn.Module,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        values: Values,
        modes: Modes,
    ) -> Ir:
        for name, said, sayable in (("values", values, Values), ("modes", modes, Modes)):
            if said not in get_args(sayable):
                listed = ", ".join(get_args(sayable))
                raise CaptureError(f"{name} is {said!r}; say one of {listed}")
        found: list[Unsupported] = []
        survey = Survey(model, partial(self._ask, found))
        memory = Memory()
        keys, tensors = _tensors(survey, memory, found)
        if survey.root.is_leaf and survey.root.answer is not None:
            ir = Ir([_leaf_model(survey.root, survey.root.answer, tensors[""])])
        else:
            functions = Functions(self.hooks.named_functions())
            known = (survey, keys, memory, functions)
            run: Callable[[], Trace] = partial(_traced, *known)
            if args is not None or kwargs is not None:
                arguments = Arguments(model, () if args is None else args, kwargs or {})
                way: Callable[..., Running] = Replaying if modes == "both" else Running
                running = partial(way, *known, Constants(survey), values, arguments)
                run = partial(steady, running)
            elif found:
                # On symbols, it would only get stuck at one of them.
                raise unsupported(found)
            try:
                ir = capture(survey, run, tensors, modes)
            except CaptureError as error:
                if not found:
                    raise
                raise unsupported([*found, *error.unsupported]) from error
        if found:
            raise unsupported(found)
        check_attributes(ir)
        return ir

    def _ask(self, found: list[Unsupported], module: nn.Module, path: str) -> Implementation | None:
        with _Noted(found, module, path):
            _refuse_unseen(module, path)
        answer = self._answer(module, path)
        if answer is None or answer.children is not None:
            with _Noted(found, module, path):
                _refuse_unheld(module, path)
        return answer

    def explain(self, subject: nn.Module | type[nn.Module]) -> Explanation:
        """Who answers for a module, in the order in which they are asked, and who declines and why.

        Args:
            subject: a module, of which all is known; or a class. A handler is asked about a class
                by an instance that no constructor has made: it answers if it takes that up.

        Raises:
            PluginError: the subject is neither.
        """
        from layergraph.torch2ir.explained import explained

        return explained(subject, self.hooks, self._own, partial(self._answer, path=""))

    def _answer(self, module: nn.Module, path: str) -> Implementation | None:
        if changes_its_call(module):
            return None
        try:
            answer = self.hooks.ask.torch_to_ir(module=module)
        except LayergraphError:
            raise
        except Exception as error:
            raise PluginError(
                f"a handler failed on {_place(module, path)}: {type(error).__name__}: "
                f"{first_line(error)}; asked were {', '.join(self.hooks.asked('torch_to_ir'))}"
            ) from error
        if answer is not None and not isinstance(answer, Implementation):
            raise PluginError(
                f"a handler gave {answer!r} for {_place(module, path)}; "
                "it must give an Implementation or None"
            )
        return answer


def _refuse_unseen(module: nn.Module, path: str) -> None:
    """Refuse a module that does what nobody would see."""
    unseen = {
        "is a ScriptModule": isinstance(module, torch.jit.ScriptModule),
        "is compiled": type(module).__module__.startswith("torch._dynamo")
        or module._compiled_call_impl is not None,
        "has backward hooks": module._backward_hooks or module._backward_pre_hooks,
    }
    for what, applies in unseen.items():
        if applies:
            raise CaptureError(
                f"{_place(module, path)} {what}, which a graph cannot hold; convert it before"
            )


# Among the modules of these packages, those that make their own state dict have it packed.
_QUANTIZED = (
    "torch.ao.nn.quantized.",
    "torch.ao.nn.intrinsic.quantized.",
    "torch.ao.nn.sparse.quantized.",
)


def _refuse_unheld(module: nn.Module, path: str) -> None:
    """Refuse a module that only a handler could keep, and for which none answers."""
    cls = type(module)
    for name, buffer in module._buffers.items():
        if isinstance(buffer, nn.Parameter):
            raise CaptureError(
                f"{_place(module, path)} has the parameter {name!r} registered as a buffer; "
                "register its data as a buffer, or itself as a parameter"
            )
    if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
        raise CaptureError(f"{_place(module, path)} places a model on devices; convert its .module")
    if cls.__module__.startswith(_QUANTIZED) and any(
        type(each)._save_to_state_dict is not nn.Module._save_to_state_dict
        for each in module.modules()
    ):
        raise CaptureError(
            f"{_place(module, path)} is a quantized module, which a graph cannot hold; convert "
            "the model before quantizing it, or register a handler for the class"
        )
    if not path and cls.forward is nn.Module.forward and "forward" not in vars(module):
        raise CaptureError(
            f"{_place(module, path)} cannot be called: it has no forward; convert the model that "
            "calls what it holds"
        )


def _place(module: nn.Module, path: str) -> str:
    return f"{path or 'the model'!r} ({type(module).__qualname__})"


def _leaf_model(
    root: Surveyed, answer: Implementation, tensors: dict[str, TensorSpec]
) -> Implementation:
    return Implementation(
        type=answer.type,
        data=answer.data,
        name=ROOT,
        tensors=tensors,
        training=None if root.module.training else False,
    )


def _traced(*known: Any) -> Trace:
    return Tracing(*known).run()


class _Noted:
    """Notes why a module cannot be carried over, and goes on to find what else there is."""

    def __init__(self, found: list[Unsupported], module: nn.Module, path: str) -> None:
        self._found, self._module, self._path = found, module, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, CaptureError):
            return False
        cls = type(self._module)
        kind = f"{cls.__module__}.{cls.__qualname__}"
        self._found.append(Unsupported(self._path, kind, str(error)))
        return True


def _tensors(
    survey: Survey, memory: Memory, found: list[Unsupported]
) -> tuple[dict[int, str], dict[str, dict[str, TensorSpec]]]:
    """The key of every tensor by its ``id``, and by module what to say of its tensors."""
    keys: dict[int, str] = {}
    tensors: dict[str, dict[str, TensorSpec]] = {}
    for surveyed in survey:
        specs = tensors[surveyed.path] = {}
        with _Noted(found, surveyed.module, surveyed.path):
            _describe_tensors(surveyed, memory, keys, specs)
            _refuse_own_state_dict(surveyed)
    return keys, tensors


def _describe_tensors(
    surveyed: Surveyed, memory: Memory, keys: dict[int, str], specs: dict[str, TensorSpec]
) -> None:
    listed = all_tensors if surveyed.is_leaf else own_tensors
    for name, tensor, persistent in listed(surveyed.module):
        key = f"{surveyed.path}.{name}" if surveyed.path else name
        first = keys.setdefault(id(tensor), key)
        if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
            raise CaptureError(f"{key!r} has hooks on its gradient, which a graph cannot hold")
        spec = describe(tensor, key, persistent=persistent, whole=not surveyed.is_leaf)
        if first != key:
            spec.tied, spec.value = first, None
        else:
            memory.claim(tensor, repr(key))
        if spec.said():
            specs[name] = spec


def _refuse_own_state_dict(surveyed: Surveyed) -> None:
    module = surveyed.module
    if surveyed.is_leaf:
        return
    cls = type(module)
    own = [
        name
        for name in ("state_dict", "_save_to_state_dict", "get_extra_state")
        if getattr(cls, name) is not getattr(nn.Module, name)
    ]
    if own or module._state_dict_hooks or module._state_dict_pre_hooks:
        what = own[0] if own else "a state-dict hook"
        raise CaptureError(
            f"{surveyed.path or 'the model'!r} ({cls.__qualname__}) makes its own state dict "
            f"({what}): the same keys cannot be promised; a handler for the class can keep it whole"
        )


def get_default_converter(disable: Collection[str] = ()) -> Torch2Ir:
    """A new converter with the handlers of all installed plugins, but for those disabled."""
    return Torch2Ir(disable=disable)
