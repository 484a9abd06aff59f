"""One conversion, station by station: ask, survey, run or trace, fold, check."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import torch
from torch import nn

from layergraph.capturing import Capturer, CaptureRequest, Modes, Values
from layergraph.errors import (
    CaptureError,
    LayergraphError,
    PluginError,
    PluginWarning,
    Unsupported,
    first_line,
)
from layergraph.ir import ROOT, Implementation, Ir, TensorSpec, check_attributes
from layergraph.ir.regions import check_regions
from layergraph.plugins import HookFailure, Hooks
from layergraph.state import Memory, UnrunnableError, describe
from layergraph.torch2ir.folding.modes import capture
from layergraph.torch2ir.indexing.module_index import ModuleIndex, ModuleInfo
from layergraph.torch2ir.indexing.overrides import changes_its_call, kept_modes
from layergraph.torch2ir.indexing.state_dicts import other_state_dicts, own_state_dict
from layergraph.torch2ir.indexing.unhandled import advice, unhandled
from layergraph.torch2ir.state.global_state import REMEDY
from layergraph.torch2ir.tracing.module_call import Trace
from layergraph.torch2ir.tracing.statelessness import check_stateless
from layergraph.torch2ir.tracing.symbolic_tracer import SymbolicCapturer
from layergraph.torch2ir.tracing.tracer import unsupported
from layergraph.torch2ir.tracing.uncompiled import outside_fake_mode, uncompiled


def convert(
    hooks: Hooks,
    model: nn.Module,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    values: Values,
    modes: Modes,
    finishing: list[Callable[[], None]],
) -> Ir:
    """See :meth:`layergraph.torch2ir.Torch2Ir.convert`.

    Args:
        hooks: who is asked about modules, and which functions may be nodes.
        model: the model.
        args: the positional arguments of an example call.
        kwargs: its arguments by name.
        values: what to do where the model decides by a number.
        modes: what the IR is to hold where the model asks for its mode.
        finishing: receives what has to be called when the capture is over.
    """
    if not isinstance(model, nn.Module):
        raise CaptureError(f"{model!r} is no torch.nn.Module; convert a module")
    for name, said, sayable in (("values", values, Values), ("modes", modes, Modes)):
        if said not in get_args(sayable):
            listed = ", ".join(get_args(sayable))
            raise CaptureError(f"{name} is {said!r}; say one of {listed}")
    try:
        with outside_fake_mode(), uncompiled(model):
            _refuse_fakes()
            return _converted(hooks, model, args, kwargs, values, modes, finishing)
    except LayergraphError:
        raise
    except Exception as error:
        raise CaptureError(
            f"the capture of {type(model).__qualname__} ends with {type(error).__name__}: "
            f"{first_line(error)}; this is a fault of layergraph, please report it"
        ) from error


def _converted(
    hooks: Hooks,
    model: nn.Module,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    values: Values,
    modes: Modes,
    finishing: list[Callable[[], None]],
) -> Ir:
    found = _Found()
    module_index = ModuleIndex(model, partial(_ask, hooks, found))
    _advise(module_index)
    memory = Memory()
    keys, tensors = _tensors(module_index, memory, found)
    if not found.is_runnable:
        raise unsupported(found)
    request = CaptureRequest(module_index, keys, memory, hooks, args, kwargs, values, modes)
    capturer = _capturer(request)
    finishing.append(capturer.finish)
    if module_index.root.is_leaf and module_index.root.answer is not None:
        found += capturer.faults()
        ir = Ir([_leaf_model(module_index.root, module_index.root.answer, tensors[""])])
    elif found and not request.has_example:
        # On symbols, it would only get stuck at one of them.
        raise unsupported(found)
    else:
        run = partial(_undisturbed, partial(check_stateless, capturer.tracer))
        try:
            ir = capture(module_index, run, tensors, modes)
        except CaptureError as error:
            full = _with_all(error, found, capturer.faults)
            if full is error:
                raise
            raise full from error
    if found:
        raise unsupported(found)
    check_attributes(ir)
    _refuse_leaks(ir)
    return ir


def _capturer(request: CaptureRequest) -> Capturer:
    """The plugin's capturer for a model, or the one of the core for a model without inputs.

    Raises:
        PluginError: a plugin failed, or broke the contract of the hook ``capture``.
        CaptureError: there are example inputs, and no installed plugin captures by running.
    """
    try:
        capturer: Capturer | None = request.hooks.ask.capture(request=request)
    except HookFailure as failure:
        raise PluginError(f"{failure}; mend it, or disable the plugin") from failure.error
    if capturer is None and request.has_example:
        raise CaptureError(
            "no installed package captures a model by running it on example inputs; pip install "
            "layergraph-capture, or convert the model without inputs"
        )
    return capturer or SymbolicCapturer(request)


def _advise(module_index: ModuleIndex) -> None:
    missing = unhandled(module_index)
    if missing:
        warnings.warn(advice(missing), PluginWarning, stacklevel=2)


def _refuse_fakes() -> None:
    """Refuse to capture where a mode of torch makes other tensors of all that are computed."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        raise CaptureError(
            "a transform of torch.func (vmap, grad …) is running, in which nothing is computed as "
            "the model computes it; convert the model outside of it"
        )
    for key in torch._C._TorchDispatchModeKey.__members__.values():
        mode = torch._C._get_dispatch_mode(key)
        if mode is not None:
            raise CaptureError(
                f"a {type(mode).__name__} is active, under which nothing is computed as the model "
                "computes it; leave it before converting a model"
            )


def _refuse_leaks(ir: Ir) -> None:
    """Refuse a model that leaves its caller in another mode of torch."""
    for each in ir.values():
        for graph in each.graphs:
            for node, message, remedy in check_regions(graph):
                raise CaptureError(f"in {each.name!r}, node {node!r}: {message}; {remedy}")


def _with_all(
    error: CaptureError, found: list[Unsupported], unfit_for: Callable[[], list[Unsupported]]
) -> CaptureError:
    """The error of a capture, with what was found before, and with what the model raises itself."""
    is_of_others = not isinstance(error.__cause__, LayergraphError | None)
    own = unfit_for() if is_of_others else []
    if own:
        return unsupported([*found, *error.unsupported[:-1], *own])
    return unsupported([*found, *error.unsupported]) if found else error


class _Found(list[Unsupported]):
    """The list of what cannot be carried over, as far as that is seen before the model runs.

    Attributes:
        is_runnable: whether the model can be run nonetheless, to find what else there is.
    """

    is_runnable = True


def _ask(hooks: Hooks, found: _Found, module: nn.Module, path: str) -> Implementation | None:
    with _Noted(found, module, path):
        _refuse_unseen(module, path)
    answer = answer_of(hooks, module, path)
    if answer is None and (idle := hooks.idle_mark(type(module))):
        warnings.warn(f"{idle}; it is traced through", PluginWarning, stacklevel=2)
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
    except HookFailure as failure:
        raise PluginError(f"{_place(module, path)}: {failure}{_asked(hooks)}") from failure.error
    except Exception as error:  # of what is between the implementations
        raise PluginError(
            f"{_place(module, path)}: asking the plugins ends with {type(error).__name__}: "
            f"{first_line(error)}{_asked(hooks)}"
        ) from error
    return answer  # type: ignore[no-any-return]


def _asked(hooks: Hooks) -> str:
    return f"; asked were {', '.join(hooks.asked('torch_to_ir'))}"


def _refuse_unseen(module: nn.Module, path: str) -> None:
    """Refuse a module of which capture would not see all that it does."""
    if isinstance(module, torch.jit.ScriptModule):
        kind = CaptureError if path else UnrunnableError
        raise kind(
            f"{_place(module, path)} is a ScriptModule, which a graph cannot hold; convert the "
            "module that was scripted or traced"
        )
    if module._backward_hooks or module._backward_pre_hooks:
        raise CaptureError(
            f"{_place(module, path)} has backward hooks, which a graph cannot hold; convert the "
            "model before they are registered"
        )


# By name: importing them takes long.
_DISTRIBUTING = frozenset(
    {
        ("torch.nn.parallel.data_parallel", "DataParallel"),
        ("torch.nn.parallel.distributed", "DistributedDataParallel"),
        ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"),
    }
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
    if any((base.__module__, base.__name__) in _DISTRIBUTING for base in cls.__mro__):
        raise UnrunnableError(
            f"{_place(module, path)} places a model on devices; convert its .module"
        )
    if cls.__module__.startswith(_QUANTIZED) and any(
        type(each)._save_to_state_dict is not nn.Module._save_to_state_dict
        for each in module.modules()
    ):
        raise CaptureError(
            f"{_place(module, path)} is a quantized module, which a graph cannot hold; convert "
            "the model before quantizing it, or register a handler for the class"
        )
    if not path and _has_no_forward(module):
        raise CaptureError(
            f"{_place(module, path)} cannot be called: it has no forward; convert the model that "
            "calls what it holds"
        )


def _has_no_forward(module: nn.Module) -> bool:
    cls = next(each for each in type(module).__mro__ if "forward" in vars(each))
    return cls is nn.Module and "forward" not in vars(module)


def _place(module: nn.Module, path: str) -> str:
    return f"{path or 'the model'!r} ({type(module).__qualname__})"


def _leaf_model(
    root: ModuleInfo, answer: Implementation, tensors: dict[str, TensorSpec]
) -> Implementation:
    return Implementation(
        type=answer.type,
        data=answer.data,
        name=ROOT,
        tensors=tensors,
        training=None if root.module.training else False,
    )


def _undisturbed(run: Callable[[], Trace]) -> Trace:
    """Run a model, and again where another thread may have changed the state of torch meanwhile."""
    try:
        return run()
    except CaptureError as error:
        of_state = any(each.reason.endswith(REMEDY) for each in error.unsupported)
        if not of_state or threading.active_count() == 1:
            raise
    return run()


class _Noted:
    """Notes why a module cannot be carried over, and goes on to find what else there is."""

    def __init__(self, found: _Found, module: nn.Module, path: str) -> None:
        self._found, self._module, self._path = found, module, path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, CaptureError):
            return False
        cls = type(self._module)
        kind = f"{cls.__module__}.{cls.__qualname__}"
        self._found.append(Unsupported(self._path, kind, str(error)))
        if isinstance(error, UnrunnableError):
            self._found.is_runnable = False
        return True


def _tensors(
    module_index: ModuleIndex, memory: Memory, found: _Found
) -> tuple[dict[int, str], dict[str, dict[str, TensorSpec]]]:
    """The key of every tensor by its ``id``, and by module what to say of its tensors."""
    keys: dict[int, str] = {}
    tensors: dict[str, dict[str, TensorSpec]] = {}
    for module_info in module_index:
        specs = tensors[module_info.path] = {}
        with _Noted(found, module_info.module, module_info.path):
            _describe_tensors(module_info, memory, keys, specs)
    if found.is_runnable:
        for module_info in module_index:
            if not module_info.is_leaf:
                with _Noted(found, module_info.module, module_info.path):
                    module_info.kept_modes = kept_modes(
                        module_info.module, is_root=not module_info.path
                    )
        for module_info in other_state_dicts(module_index):
            with _Noted(found, module_info.module, module_info.path):
                raise CaptureError(
                    f"{_place(module_info.module, module_info.path)} makes its own state dict "
                    f"({own_state_dict(module_info.module)}): the same keys cannot be promised; a "
                    "handler for the class can keep it whole"
                )
    return keys, tensors


def _describe_tensors(
    module_info: ModuleInfo, memory: Memory, keys: dict[int, str], specs: dict[str, TensorSpec]
) -> None:
    for name, tensor, persistent in module_info.tensors():
        key = module_info.key(name)
        first = keys.setdefault(id(tensor), key)
        if tensor._backward_hooks or tensor._post_accumulate_grad_hooks:
            raise CaptureError(f"{key!r} has hooks on its gradient, which a graph cannot hold")
        spec = describe(tensor, key, persistent=persistent, whole=not module_info.is_leaf)
        if spec.kind == "buffer" and name in getattr(module_info.module, "_uncast", ()):
            # A constant of a rebuilt model: casting leaves it as it is.
            spec.kind, spec.persistent = "constant", None
        if first != key:
            spec.tied, spec.value = first, None
        else:
            memory.claim(tensor, repr(key))
        if spec != _UNSAID:
            specs[name] = spec


_UNSAID = TensorSpec()
