"""The cost of operators: two FLOPs for each multiply-add of a matrix product, none for the rest.

``docs/explanation/cost.md`` has the definitions for layers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from layergraph.ir import Implementation
from layergraph_shapes.described import tensors_in


@dataclass(frozen=True, slots=True)
class LayerCall:
    """One call of a layer or function, for a formula of its FLOPs.

    Attributes:
        layer: the layer; None for a function.
        args: the positional arguments. Tensors have a shape and a dtype, and no numbers.
        kwargs: the arguments by name.
        result: the result.
    """

    layer: Implementation | None
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any


Formula = Callable[[LayerCall], int]
"""Returns the FLOPs of a call."""


def _product(of: int, by: int) -> Callable[..., Any]:
    """Return the formula of a product of two arguments that sums over the last axis of the first.

    Args:
        of: the position of the first argument.
        by: the position of the second one.
    """

    def flops(_: Any, args: tuple[Any, ...]) -> Any:
        if args[of].dtype != args[by].dtype:
            # torch checks this only on real tensors.
            raise TypeError(f"a product of {args[of].dtype} and {args[by].dtype}")
        columns = args[by].shape[-1] if args[by].dim() > 1 else 1
        return 2 * args[of].numel() * columns

    return flops


def _convolution(result: Any, args: tuple[Any, ...]) -> Any:
    inputs, weight, *_, is_transposed = args[:7]
    over = inputs if is_transposed else result
    if any(isinstance(size, int) and size < 1 for size in result.shape[2:]):
        # Some releases of torch check this only on real tensors.
        raise ValueError(f"a kernel of {tuple(weight.shape[2:])} is larger than the input")
    return 2 * over.shape[0] * math.prod(over.shape[2:]) * weight.numel()


def _attention(_: Any, args: tuple[Any, ...]) -> Any:
    query, key, value = args[:3]
    *outer, width = query.shape
    return 2 * math.prod(outer) * key.shape[-2] * (width + value.shape[-1])


def _trilinear(_: Any, args: tuple[Any, ...]) -> Any:
    """Return the cost of a bilinear layer: x1 times the weight, and that times x2."""
    one, weight, other = args[:3]
    samples = one.numel() // one.shape[-1]
    return 2 * samples * weight.numel() + 2 * samples * weight.shape[0] * other.shape[-1]


def _of_each_place(result: Any, args: tuple[Any, ...]) -> Any:
    """Return the cost of a convolution over (time, batch, channels)."""
    return 2 * math.prod(result.shape[:2]) * args[1].numel()


def _deformable(result: Any, args: tuple[Any, ...]) -> Any:
    return 2 * result.shape[0] * math.prod(result.shape[2:]) * args[1].numel()


def _grouped_product(_: Any, args: tuple[Any, ...]) -> Any:
    of, by = args[:2]
    each = of[0] if of.dim() == 3 and by.dim() == 2 else of
    return 2 * each.numel() * by.shape[-1]


OPERATORS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(("aten.mm", "aten.bmm", "aten.mv", "aten.dot", "aten.vdot"), _product(0, 1)),
    **dict.fromkeys(
        ("aten.addmm", "aten.baddbmm", "aten.addbmm", "aten.addmv", "aten._addmm_activation"),
        _product(1, 2),
    ),
    **dict.fromkeys(("aten._int_mm", "aten._scaled_mm"), _product(0, 1)),
    **dict.fromkeys(
        ("aten.convolution", "aten._convolution", "aten.convolution_overrideable"), _convolution
    ),
    **dict.fromkeys(
        (
            "aten._scaled_dot_product_flash_attention",
            "aten._scaled_dot_product_flash_attention_for_cpu",
            "aten._scaled_dot_product_efficient_attention",
            "aten._scaled_dot_product_cudnn_attention",
            "aten._scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
    "aten._grouped_mm": _grouped_product,
    "aten.conv_tbc": _of_each_place,
    "aten._trilinear": _trilinear,
    "torchvision.deform_conv2d": _deformable,
}
"""The FLOPs of operators that multiply matrices, from the result and the positional arguments."""

# Operators without a matrix product, in addition to those that torch tags as pointwise, as a view,
# or as core. OPERATORS lists all core operators with a product.
_FREE = frozenset(
    (
        "_adaptive_avg_pool2d _adaptive_avg_pool3d _add_relu _aminmax _assert_async "
        "_assert_scalar _assert_tensor_metadata _batch_norm_no_update _batch_norm_with_update "
        "_batch_norm_with_update_functional _cdist_forward _conj_physical _ctc_loss "
        "_efficientzerotensor _embedding_bag _embedding_bag_forward_only _euclidean_dist "
        "_fft_c2c _fft_c2r _fft_r2c _functional_assert_async _functional_assert_scalar "
        "_fused_rms_norm _grid_sampler_2d_cpu_fallback _histogramdd_bin_edges "
        "_histogramdd_from_bin_cts _histogramdd_from_bin_tensors _index_put_impl _is_all_true "
        "_is_any_true _jagged_to_padded_dense_forward _log_softmax _logcumsumexp "
        "_masked_scale _masked_softmax _native_batch_norm_legit "
        "_native_batch_norm_legit_no_training _new_zeros_with_same_feature_meta "
        "_pack_padded_sequence _pad_packed_sequence _padded_dense_to_jagged_forward "
        "_pdist_forward _pin_memory _prelu_kernel _resize_output _safe_softmax "
        "_sample_dirichlet _softmax _stack _standard_gamma _to_copy _unique _unique2 "
        "_unsafe_index _unsafe_index_put _unsafe_masked_index "
        "_unsafe_masked_index_put_accumulate _unsafe_view _upsample_bicubic2d_aa "
        "_upsample_bilinear2d_aa _upsample_lanczos2d_aa _upsample_nearest_exact1d "
        "_upsample_nearest_exact2d _upsample_nearest_exact3d _use_cudnn_ctc_loss "
        "_weight_norm_interface adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d "
        "adaptive_max_pool3d affine_grid_generator all amax amin aminmax any arange argsort "
        "as_strided_scatter avg_pool1d avg_pool2d avg_pool3d bartlett_window batch_norm_elemt "
        "batch_norm_gather_stats batch_norm_stats batch_norm_update_stats bernoulli "
        "binary_cross_entropy binary_cross_entropy_with_logits bincount binomial "
        "blackman_window block_diag bucketize cat cauchy channel_shuffle clone col2im complex "
        "constant_pad_nd copy count_nonzero cudnn_batch_norm cummax cummin cumprod cumsum "
        "dequantize diag_embed diagonal_scatter dist dropout embedding embedding_renorm "
        "empty_permuted empty_strided exponential eye fill flip floor_divide "
        "fractional_max_pool2d fractional_max_pool3d full gather geometric glu "
        "grid_sampler_3d hamming_window hann_window histc histogram huber_loss im2col "
        "index_add index_copy index_fill index_put index_reduce is_same_size isclose isin "
        "kaiser_window kthvalue lift linalg_vector_norm linspace log_normal "
        "log_sigmoid_forward logcumsumexp logspace logsumexp lu_unpack masked_fill "
        "masked_scatter masked_select max max_pool2d_with_indices max_pool3d_with_indices "
        "max_unpool2d max_unpool3d mean median min mode mse_loss multi_margin_loss "
        "multilabel_margin_loss_forward multinomial nanmedian nansum native_batch_norm "
        "native_channel_shuffle native_dropout native_group_norm native_layer_norm "
        "native_norm new_empty new_empty_strided new_full new_ones new_zeros "
        "nll_loss2d_forward nll_loss_forward nonzero nonzero_static norm normal "
        "normal_functional ones pixel_shuffle pixel_unshuffle poisson polar prod put rand "
        "randint randn random randperm range reflection_pad1d reflection_pad2d "
        "reflection_pad3d renorm repeat repeat_interleave replication_pad1d replication_pad2d "
        "replication_pad3d resize rms_norm roll rot90 rrelu_with_noise "
        "rrelu_with_noise_functional scalar_tensor scatter scatter_add scatter_reduce "
        "searchsorted segment_reduce select_scatter set_ slice_scatter smooth_l1_loss "
        "soft_margin_loss sort split stack std std_mean sum take to_padded_tensor topk trace "
        "tril tril_indices triu triu_indices unfold_copy uniform unique_consecutive "
        "unique_dim unique_dim_consecutive unsafe_split unsafe_split_with_sizes "
        "upsample_bicubic2d upsample_bilinear2d upsample_linear1d upsample_nearest1d "
        "upsample_nearest2d upsample_nearest3d upsample_trilinear3d var var_mean where zero "
        "zeros "
    ).split()
)
_FREE_ELSEWHERE = frozenset(
    f"torchvision.{name}" for name in "nms roi_align roi_pool ps_roi_align ps_roi_pool".split()
)


@functools.cache
def is_free(operator: Any) -> bool:
    """Return whether an operator contains no matrix product."""
    namespace, name = _named(operator)
    if namespace in ("prim", "prims", "profiler"):
        return True
    if namespace != "aten":
        return f"{namespace}.{name}" in _FREE_ELSEWHERE
    if name in _FREE or name.endswith("_like") or operator.is_view:
        return True
    # In-place and scalar variants lack some tags.
    packet = getattr(torch.ops.aten, name)
    overloads = [operator, *[getattr(packet, each) for each in packet.overloads()]]
    return any({torch.Tag.pointwise, torch.Tag.core} & {*each.tags} for each in overloads)


@functools.cache
def _named(operator: Any) -> tuple[str, str]:
    """Return the namespace of an operator, and its name without the in-place underscore."""
    namespace, _, name = operator._schema.name.partition("::")
    base = name.removesuffix("_")
    return namespace, base if hasattr(getattr(torch.ops, namespace), base) else name


def _grouped(of: Any, by: Any, offsets: Any = None, *_: Any, out_dtype: Any = None) -> Any:
    """Stand-in for grouped products, whose meta kernels torch has for some dtypes only."""
    sizes = [of.shape[-2], by.shape[-1]]
    if of.dim() == by.dim():
        sizes.insert(0, of.shape[0] if of.dim() == 3 else offsets.shape[0])
    return of.new_empty(sizes, dtype=out_dtype or of.dtype)


_STAND_INS: dict[str, Callable[..., Any]] = {"aten._grouped_mm": _grouped}


class Operators(TorchDispatchMode):
    """A mode that counts the FLOPs of all operators on fake tensors.

    Attributes:
        flops: the sum so far.
        uncounted: the operators so far whose cost is unknown.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reset()

    def reset(self) -> None:
        """Reset the counts."""
        self.flops: Any = 0
        self.uncounted: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = ".".join(_named(func))
        kwargs = kwargs or {}
        result = _STAND_INS.get(name, func)(*args, **kwargs)
        formula = OPERATORS.get(name)
        if formula is not None:
            self.flops += formula(result, args)
        elif not is_free(func) and tensors_in(result):
            self.uncounted.append(name)
        return result
