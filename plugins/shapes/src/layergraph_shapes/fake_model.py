"""A model on fake tensors."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from layergraph.api import default_ir2torch
from layergraph.errors import Place, ShapeError
from layergraph.functions.names import Targets
from layergraph.ir import STATE, Graph, Implementation, Ir, Node, check
from layergraph.ir.bodies import owners
from layergraph.ir2torch.graph import fx_graph
from layergraph.ir2torch.meta_model import MetaModel
from layergraph.ir2torch.submodules import owner_of
from layergraph.tensors.memory import is_plain
from layergraph.tensors.state import replace
from layergraph_shapes.formulas import Operators
from layergraph_shapes.messages import place
from layergraph_shapes.observer import Path
from layergraph_shapes.sizes import Sizes

_FUSED: list[tuple[Callable[[], bool], Callable[[bool], object]]] = [
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    # The public context manager of the next one warns on some machines.
    (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    (torch._C._get_nnpack_enabled, torch._C._set_nnpack_enabled),
]

_LOG = logging.getLogger("torch._subclasses.fake_tensor")


_REGISTERED = "_parameters", "_buffers"


def meta_model(ir: Ir, *, training: bool | None = None) -> MetaModel:
    """Build the model of an IR on the meta device, as a :class:`FakeModel` takes it.

    Args:
        ir: the IR.
        training: the mode; None: the mode of the IR.

    Raises:
        InvalidIrError, BuildError, PluginError: as for :func:`layergraph.to_torch`.
    """
    check(ir)
    # Constructors draw random numbers.
    with torch.random.fork_rng(devices=[]), torch.inference_mode(False):
        built = default_ir2torch().meta_model(ir)
    if training is not None:
        built.model.train(training)
    return built


class FakeModel:
    """The modules of an IR on fake tensors, and its graphs in the terms of torch.fx.

    Args:
        built: the model on the meta device. It has its meta tensors again after :meth:`running`.
        sizes: the symbolic sizes.

    Attributes:
        ir: the IR.
        modules: the modules, by the name of their implementation.
        weights: the original tensors on the meta device: the key, the tensor, and True if state
            dicts hold it.
        kinds: the kinds of tensors that consist of parts.
        tensors: the tensors, by their key.
        mode: the mode of torch under which the modules run.
        operators: the mode that counts operators.
    """

    def __init__(self, built: MetaModel, sizes: Sizes) -> None:
        self.ir = built.ir
        self._owners = owners(built.ir)
        self.modules = built.modules
        self.weights = built.listed
        self.kinds = built.kinds
        self.mode = FakeTensorMode(shape_env=sizes.env, allow_non_fake_inputs=True)
        self.operators = Operators()
        self._functions = Targets(default_ir2torch().hooks.named_functions())
        self._graphs: dict[str, tuple[fx.Graph, dict[fx.Node, Node]]] = {}
        self.tensors: dict[str, torch.Tensor] = {}
        self._to_fakes(built.model, {id(tensor): value for tensor, value in built.values})

    @torch.inference_mode(False)
    def _to_fakes(self, model: nn.Module, known: Mapping[int, torch.Tensor]) -> None:
        """Replace the tensors of a model by fake ones.

        Args:
            model: the model on the meta device.
            known: the values that the IR holds, by the id of the tensor.
        """
        fakes: dict[int, torch.Tensor] = {}
        for key, tensor, _ in self.weights:
            if id(tensor) not in fakes:
                fakes[id(tensor)] = _fake(self.mode, tensor, known.get(id(tensor)))
            self.tensors[key] = fakes[id(tensor)]
        self._without_fakes = [
            (vars(module), vars(module) | {name: dict(vars(module)[name]) for name in _REGISTERED})
            for module in model.modules()
        ]
        for module in model.modules():
            for registered in (module._parameters, module._buffers):
                for name, own in list(registered.items()):
                    if own is not None and id(own) in fakes:
                        replace(module, name, fakes[id(own)])

    @contextmanager
    def running(self) -> Iterator[None]:
        """Return a context that runs modules on fake tensors, without fused kernels.

        Fused kernels would hide operators. At the end the modules get their meta tensors back,
        because some libraries keep a list of all layers, which must not hold fake tensors.
        """
        with ExitStack() as stack:
            stack.callback(self._drop_fakes)
            for get, set_to in _FUSED:
                stack.callback(set_to, get())
                set_to(False)
            stack.enter_context(torch.inference_mode(False))
            # torch logs each error of an operator; we raise the error, so the log is noise.
            stack.callback(setattr, _LOG, "disabled", _LOG.disabled)
            _LOG.disabled = True
            # C++ kernels would treat symbolic sizes as numbers; use the Python ones.
            stack.enter_context(enable_python_dispatcher())
            stack.enter_context(self.mode)
            stack.enter_context(self.operators)
            yield

    def _drop_fakes(self) -> None:
        for own, before in self._without_fakes:
            own.clear()
            own.update(before)

    def owner_of(self, implementation: Implementation) -> Implementation:
        """Return the implementation whose module a graph runs in: for a body, another one."""
        return self.ir[self._owners.get(implementation.name, implementation.name)]

    def graph_of(self, implementation: Implementation) -> Graph:
        """Return the graph of an implementation in the mode of its module."""
        is_training = self.modules[self.owner_of(implementation).name].training
        return implementation if is_training else implementation.graphs[-1]

    def fx_graph_of(self, implementation: Implementation) -> tuple[fx.Graph, dict[fx.Node, Node]]:
        """Return this graph in the terms of torch.fx, and the node that each of its nodes is.

        Those that only check or make an argument are no node of the IR. The target of a call is the
        name of the implementation, and that of a state node the key.
        """
        name = implementation.name
        if name not in self._graphs:
            graph = self.graph_of(implementation)
            targets = {
                each.name: each.implementation
                for each in graph.nodes.values()
                if each.type == STATE or each.is_call
            }
            place = Place("implementation", name)
            made, built = fx_graph(
                graph, place, self._functions, targets, {body: body for body in self._owners}
            )
            self._graphs[name] = made, {each: graph.nodes[own] for own, each in built.items()}
        return self._graphs[name]

    @functools.cached_property
    def sets_state(self) -> bool:
        """Return whether a graph sets a tensor, which later calls of a composite then read."""
        graphs = (graph for each in self.ir.values() for graph in each.graphs)
        return any(node.sets_state for graph in graphs for node in graph.nodes.values())

    def set_state(self, path: Path, key: str, value: Any, *, is_certain: bool) -> None:
        """Set a tensor, for the rest of the walk.

        Raises:
            ShapeError: it gets another shape, and it is not certain that the node runs.
        """
        if is_certain:
            self.tensors = {**self.tensors, key: value}
        elif self.state(key).shape != value.shape:
            raise ShapeError(
                f"{place(path)}: it gives {key!r} another shape on one way only; give the "
                "answers of the decisions"
            )

    def state(self, key: str) -> Any:
        """Return the value of a state node: a tensor, or the mode of a module."""
        if key in self.tensors:
            return self.tensors[key]
        owner, _ = owner_of(self.ir, key)
        return self.modules[owner].training


def _fake(mode: FakeTensorMode, tensor: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    """Return a fake tensor that behaves as one on the CPU.

    Args:
        mode: the mode of the fake tensors.
        tensor: the tensor on the meta device.
        known: its value on the CPU, if known, because code may branch on it.
    """
    cpu = torch.device("cpu")
    if not is_plain(tensor):
        # A tensor that consists of parts gets a plain tensor of its shape.
        plain = torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
        tensor = nn.Parameter(plain, False) if isinstance(tensor, nn.Parameter) else plain
        known = None
    constant = known if known is not None and known.numel() == 1 else None
    fake: torch.Tensor = FakeTensor(mode, tensor.detach(), cpu, constant=constant)
    if isinstance(tensor, nn.Parameter):
        # nn.Parameter() does the same after a call of detach(). It has no gradients, so that
        # autograd saves no values.
        fake._is_param = True
    return fake
