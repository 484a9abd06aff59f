"""Every public function of torch's namespaces has a name, or a reason to have none."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import CaptureError
from layergraph.functions.names import Functions
from layergraph.functions.table import NAMESPACES, is_own
from layergraph.testing import bitwise_equal
from layergraph.torch_versions import has

pytestmark = pytest.mark.slow

# The functions without a name, with the reason.
UNNAMED = {
    "asks for, or changes, the state of the process or the machine": """
        autocast_decrement_nesting
        autocast_increment_nesting clear_autocast_cache compiled_with_cxx11_abi
        get_autocast_cpu_dtype get_autocast_gpu_dtype get_autocast_ipu_dtype
        get_autocast_xla_dtype get_deterministic_debug_mode get_device_module
        get_num_interop_threads get_rng_state
        init_num_threads initial_seed is_anomaly_check_nan_enabled is_autocast_cpu_enabled
        is_autocast_ipu_enabled is_autocast_xla_enabled
        is_vulkan_available is_warn_always_enabled manual_seed
        prepare_multiprocessing_environment seed set_anomaly_enabled set_autocast_cache_enabled
        set_autocast_cpu_dtype set_autocast_cpu_enabled set_autocast_dtype set_autocast_enabled
        set_autocast_gpu_dtype set_autocast_ipu_dtype set_autocast_ipu_enabled
        set_autocast_xla_dtype set_autocast_xla_enabled set_default_device set_default_dtype
        set_default_tensor_type set_deterministic_debug_mode set_float32_matmul_precision
        set_flush_denormal set_num_interop_threads set_num_threads set_printoptions set_rng_state
        set_warn_always thread_safe_generator use_deterministic_algorithms
        read_vitals set_vital vitals_enabled
        profiler_allow_cudagraph_cupti_lazy_reinit_cuda12
    """,
    "reads files or memory of others": """
        from_dlpack from_file from_numpy frombuffer get_file_path import_ir_module
        import_ir_module_from_buffer load resize_as_ resize_as_sparse_ save segment_reduce to_dlpack
        fbgemm_linear_fp16_weight
        fbgemm_linear_fp16_weight_fp32_activation fbgemm_linear_int8_weight
        fbgemm_linear_int8_weight_fp32_activation fbgemm_linear_quantize_weight
        fbgemm_pack_gemm_matrix_fp16 fbgemm_pack_quantized_matrix
    """,
    "runs code that it is given, or compiles it": """
        classproperty compile cond fork merge_type_from_type_comment parse_ir parse_schema
        parse_type_comment unify_type_list vmap wait while_loop boolean_dispatch
        handle_torch_function
    """,
    "is a kernel of one backend": """
        cudnn_affine_grid_generator cudnn_batch_norm cudnn_convolution cudnn_convolution_add_relu
        cudnn_convolution_relu cudnn_convolution_transpose cudnn_grid_sampler cudnn_is_acceptable
        empty_quantized miopen_ctc_loss mkldnn_adaptive_avg_pool2d mkldnn_convolution
        mkldnn_linear_backward_weights mkldnn_max_pool2d mkldnn_max_pool3d mkldnn_rnn_layer
        quantized_gru quantized_lstm
    """,
    "names dimensions, which newer releases of torch do not": "align_tensors",
    "says something of types alone": """
        can_cast is_storage is_tensor typename assert_int_or_pair has_torch_function
        has_torch_function_unary has_torch_function_variadic sym_constrain_range
        sym_constrain_range_for_size sym_fresh_size
    """,
    "is gone, and raises": "cholesky eig lstsq matrix_rank qr solve symeig",
    "is traced through to functions that have names": """
        grouped_mm scaled_grouped_mm scaled_mm sigmoid tanh upsample upsample_bilinear
        upsample_nearest
    """,
}
# An older release does not have them.
NEWER = set() if has("grouped_mm") else {"grouped_mm", "scaled_grouped_mm", "scaled_mm"}
REASONS = {name: reason for reason, names in UNNAMED.items() for name in names.split()}

FUNCTIONS = Functions([])


def _public(namespace):
    for name, member in sorted(vars(namespace).items()):
        is_function = callable(member) and not isinstance(member, type)
        # Skip functions of typing, and of libraries that replace torch's function by their own.
        if is_function and not name.startswith("_") and is_own(member):
            yield name, member


@pytest.mark.parametrize("namespace", NAMESPACES, ids=lambda each: each.__name__)
def test_every_public_function_has_a_name_or_a_reason(namespace):
    unnamed = {name for name, member in _public(namespace) if FUNCTIONS.name_of(member) is None}
    assert unnamed <= REASONS.keys()


def test_no_reason_is_left_over():
    unnamed = {
        name
        for namespace in NAMESPACES
        for name, member in _public(namespace)
        if FUNCTIONS.name_of(member) is None
    }
    # Versions of torch differ by a few functions only.
    assert len(REASONS.keys() - unnamed - NEWER) < 10


REPLACED = """
import torch

own = torch.select

def select(input, dim, index):
    return own(input, dim, index)

select.__module__ = "a_library"
torch.select = select

from torch import nn
import layergraph as lg

class Model(nn.Module):
    def forward(self, x):
        return torch.select(x, 0, 1) + own(x, 0, 0)

for args in None, (torch.rand(2, 3),):
    ir = lg.to_ir(Model(), args=args)
    nodes = ir[ir.root].graphs[0].nodes.values()
    called = [node.implementation for node in nodes]
    print(*called)
"""


def test_a_library_may_replace_an_operator():
    # The table is read once in a process, so a fresh one replaces the operator first.
    run = subprocess.run(
        [sys.executable, "-c", REPLACED], capture_output=True, text=True, check=True
    )
    traced, ran = run.stdout.splitlines()
    assert traced.split().count("torch.select") == 2
    assert ran.split().count("torch.select") == 2


@pytest.mark.parametrize("inputs", [None, (torch.rand(2, 2),)], ids=["traced", "run"])
@pytest.mark.parametrize("namespace", NAMESPACES, ids=lambda each: each.__name__)
def test_functions_of_one_tensor_come_back(namespace, inputs):
    wrong, count = [], 0
    for name, _ in _public(namespace):
        if name in REASONS and not REASONS[name].startswith("is traced"):
            continue
        if name.startswith("empty"):
            continue  # Its values are arbitrary.
        if name == "sym_sum" and inputs is None and not has("symbolic_sym_sum"):
            continue
        model = _Calls(namespace, name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wanted = _seeded(model)
                count += isinstance(wanted, torch.Tensor)
        except Exception:
            continue  # the function does not accept one tensor
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                again = lg.to_torch(lg.to_ir(model, inputs))
        except CaptureError as error:
            # A function that returns no tensor may be refused with a reason.
            if isinstance(wanted, torch.Tensor) or "has no name in an IR" in str(error):
                wrong.append(f"{name}: {error}")
            continue
        if _parts(_seeded(again)) != _parts(wanted):
            wrong.append(f"{name}: {wanted}, and then {_seeded(again)}")
    assert wrong == []
    assert count > 10


def _parts(value):
    return [*map(repr, value)] if isinstance(value, tuple) else repr(value)


def _seeded(model):
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model(torch.tensor([[2.0, 0.5], [0.5, 1.0]]))


class _Calls(nn.Module):
    def __init__(self, namespace, name):
        super().__init__()
        self._called = namespace.__name__.split(".")[1:], name

    def forward(self, x):
        path, name = self._called
        namespace = torch
        for each in path:
            namespace = getattr(namespace, each)
        return getattr(namespace, name)(x)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (torch.mm, "torch.mm"),
        (torch.spmm, "torch.mm"),
        (torch.dsmm, "torch.mm"),
        (torch.hsmm, "torch.hspmm"),
        (torch.relu_, "torch.nn.functional.relu_"),
        (torch.clamp_, "torch.clamp_"),
        (torch.fill, "torch.fill"),
        (nn.functional.hardsigmoid, "torch.nn.functional.hardsigmoid"),
        (nn.functional.leaky_relu_, "torch.nn.functional.leaky_relu_"),
        (torch.fft.rfftfreq, "torch.fft.rfftfreq"),
        (torch.ops.prims.sum, "torch.ops.prims.sum"),
        (torch.ops.prims.sum.default, "torch.ops.prims.sum.default"),
        (torch.ops.aten.relu, "torch.ops.aten.relu"),
        (torch.ops.aten.resize_, None),
        (torch.ops.prims.resize, None),
        (torch.ops.profiler._record_function_enter_new, None),
        (torch.from_file, None),
        (torch.fbgemm_pack_gemm_matrix_fp16, None),
        (torch.ops.aten.fbgemm_linear_fp16_weight, None),
    ],
)
def test_of_several_names_that_of_an_operator_counts(function, name):
    assert FUNCTIONS.name_of(function) == name


@pytest.mark.parametrize("name", ["torch.spmm", "torch.dsmm", "torch.mm", "torch.Tensor.mm"])
def test_older_names_still_lead_to_the_function(name):
    target = FUNCTIONS.target(name).target
    assert target == "mm" or FUNCTIONS.name_of(target) == "torch.mm"


IN_PLACE = sorted(
    name
    for namespace in (torch, nn.functional)
    for name, member in vars(namespace).items()
    if name.endswith("_") and not name.startswith("_") and FUNCTIONS.name_of(member) is not None
    if isinstance(member, types.BuiltinFunctionType)
)


def test_forms_that_work_in_place_are_there():
    assert len(IN_PLACE) > 60


@pytest.mark.parametrize("with_inputs", [True, False])
def test_forms_that_work_in_place_come_back(with_inputs):
    x = torch.rand(3, 4)
    for name in IN_PLACE:
        function = getattr(torch, name, None) or getattr(nn.functional, name)
        try:
            wanted = function(x.clone())
        except (TypeError, RuntimeError):
            continue  # It takes more than one argument.
        model = _InPlace(function)
        again = lg.to_torch(lg.to_ir(model, (x,) if with_inputs else None))
        torch.manual_seed(3)
        wanted = model(x)
        torch.manual_seed(3)
        assert bitwise_equal(again(x), wanted), name


class _InPlace(nn.Module):
    def __init__(self, function):
        super().__init__()
        self._function = (function,)

    def forward(self, x):
        copied = x.clone()
        self._function[0](copied)
        return copied


def test_a_method_with_two_names_has_one_in_every_process():
    assert torch.Tensor.__rdiv__ is torch.Tensor.__rtruediv__
    assert FUNCTIONS.name_of(torch.Tensor.__rdiv__) == "torch.Tensor.__rtruediv__"
