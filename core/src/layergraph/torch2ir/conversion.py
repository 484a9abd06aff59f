"""One conversion, station by station: ask, survey, run or trace, fold, check."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import torch
from torch import nn

from layergraph.errors import (
    CaptureError,
    LayergraphError,
    PluginError,
    Unsupported,
    first_line,
)
from layergraph.functions import Functions
from layergraph.ir import ROOT, Implementation, Ir, TensorSpec, check_attributes
from layergraph.plugins import Hooks
from layergraph.state import Memory, describe
from layergraph.torch2ir.calls import Trace
from layergraph.torch2ir.capture import unsupported
from layergraph.torch2ir.folding.modes import Modes, capture
from layergraph.torch2ir.own import changes_its_call
from layergraph.torch2ir.replaying.replay import Replaying
from layergraph.torch2ir.running.arguments import Arguments
from layergraph.torch2ir.running.constants import Constants
from layergraph.torch2ir.running.questions import Values
from layergraph.torch2ir.running.repeat import steady
from layergraph.torch2ir.running.run import Running
from layergraph.torch2ir.survey import Survey, Surveyed
from layergraph.torch2ir.tracing.trace import Tracing


def convert(
    hooks: Hooks,
    model: nn.Module,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    values: Values,
    modes: Modes,
) -> Ir:
    """See :meth:`layergraph.torch2ir.Torch2Ir.convert`.

    Args:
        hooks: who is asked about modules, and which functions may be nodes.
        model: the model.
        args: the positional arguments of an example call.
        kwargs: its arguments by name.
        values: what to do where the model decides by a number.
        modes: what the IR is to hold where the model asks for its mode.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(f"{model!r} is no torch.nn.Module; convert a module")
    for name, said, sayable in (("values", values, Values), ("modes", modes, Modes)):
        if said not in get_args(sayable):
            listed = ", ".join(get_args(sayable))
            raise CaptureError(f"{name} is {said!r}; say one of {listed}")
    found: list[Unsupported] = []
    survey = Survey(model, partial(_ask, hooks, found))
    memory = Memory()
    keys, tensors = _tensors(survey, memory, found)
    if survey.root.is_leaf and survey.root.answer is not None:
        ir = Ir([_leaf_model(survey.root, survey.root.answer, tensors[""])])
    else:
        functions = Functions(hooks.named_functions())
        known = (survey, keys, memory, functions)
        run: Callable[[], Trace] = partial(steady, partial(Tracing, *known))
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


def _ask(
    hooks: Hooks, found: list[Unsupported], module: nn.Module, path: str
) -> Implementation | None:
    with _Noted(found, module, path):
        _refuse_unseen(module, path)
    answer = answer_of(hooks, module, path)
    if answer is None or answer.children is not None:
        with _Noted(found, module, path):
            _refuse_unheld(module, path)
    return answer


def answer_of(hooks: Hooks, module: nn.Module, path: str) -> Implementation | None:
    """What the handlers say of a module.

    Raises:
        PluginError: one failed, or broke its contract.
    """
    if changes_its_call(module):
        return None
    try:
        answer = hooks.ask.torch_to_ir(module=module)
    except LayergraphError:
        raise
    except Exception as error:
        raise PluginError(
            f"a handler failed on {_place(module, path)}: {type(error).__name__}: "
            f"{first_line(error)}; asked were {', '.join(hooks.asked('torch_to_ir'))}"
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
    for name, tensor, persistent in surveyed.tensors():
        key = surveyed.key(name)
        first = keys.setdefault(id(tensor), key)
        if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
            raise CaptureError(f"{key!r} has hooks on its gradient, which a graph cannot hold")
        spec = describe(tensor, key, persistent=persistent, whole=not surveyed.is_leaf)
        if first != key:
            spec.tied, spec.value = first, None
        else:
            memory.claim(tensor, repr(key))
        if spec != _UNSAID:
            specs[name] = spec


_UNSAID = TensorSpec()


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
