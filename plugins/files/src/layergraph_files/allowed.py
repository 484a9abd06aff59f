"""The functions of torch that a file may call: those that check their arguments.

Functions that torch documents check their arguments. The internal operations that they call do not:
they trust indices, sizes and packed weights, and read or write out of bounds if these are wrong.
The names of such operations follow a few conventions, which this module turns into rules. The
exceptions are operations that captured models call. A file may call any function that an installed
plugin lists.

An IR in memory may call more, because its user has already run the model's code.
"""

from __future__ import annotations

import functools

from layergraph.ir import Node

# An operation with one of these words in its name is a backward pass, a kernel of one library, a
# kernel for tensors of an unusual layout, or one that enlarges a tensor without initialising it.
_WORDS = frozenset(
    "backward cudnn double elemt fbgemm jvp miopen mkldnn mps nested overrideable packed qparams "
    "quantized resize sparse stats unsafe".split()
)

# Names that have such a word, or are private, although torch documents the operation or exported
# models call it.
_EXCEPTIONS = frozenset(
    "__and__ __iand__ __ilshift__ __ior__ __irshift__ __ixor__ __lshift__ __or__ __rshift__ "
    "__xor__ _adaptive_avg_pool2d _adaptive_avg_pool3d _assert_async _assert_scalar "
    "_assert_tensor_metadata _cdist_forward _conj _conj_physical _convolution _embedding_bag "
    "_functional_assert_async _functional_assert_scalar _grouped_mm _int_mm _is_all_true "
    "_is_any_true _local_scalar_dense _log_softmax _pack_padded_sequence _pad_circular "
    "_pad_enum _pdist_forward _prelu_kernel _safe_softmax _scaled_grouped_mm _scaled_mm "
    "_sample_dirichlet _scaled_dot_product_attention_math _shape_as_tensor _softmax _stack "
    "_standard_gamma _to_copy _trilinear "
    "_unsafe_view _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d "
    "_upsample_nearest_exact2d _upsample_nearest_exact3d _assert unsafe_chunk unsafe_split "
    "unsafe_split_with_sizes double is_sparse is_sparse_csr is_nested is_mkldnn "
    "is_quantized is_mps sparse_dim sparse_mask to_mkldnn to_sparse to_sparse_bsc to_sparse_bsr "
    "to_sparse_coo to_sparse_csc to_sparse_csr".split()
)

# Operations that return memory or handles, builtins of TorchScript, and kernels that use the size
# of one argument to access another one.
_NAMES = frozenset(
    "dict embedding_renorm embedding_renorm_ from_file get_gradients grad items keys "
    "native_batch_norm popitem segment_reduce set set_ shallow_copy_data shallow_copy_data_ "
    "sorted".split()
)

# The overloads of recurrent functions for padded sequences have a bool at this position. Those for
# packed sequences take batch sizes, which no kernel checks.
_RECURRENT = frozenset("gru lstm rnn_relu rnn_tanh".split())
_FLAG = 3

# Python functions that check their arguments, although operations have such names.
_IN_PYTHON = "torch.autograd."

# For these names, a graph runs the functions of layergraph.functions.checked. The operations
# themselves do not check.
_CHECKED = frozenset(
    "_convert_indices_from_coo_to_csr _pad_packed_sequence _weight_norm sparse_bsc_tensor "
    "sparse_bsr_tensor sparse_compressed_tensor sparse_coo_tensor sparse_csc_tensor "
    "sparse_csr_tensor".split()
)

# Arguments that switch off the checks of a function, or that hold an address.
_ARGUMENTS = frozenset({"cdata", "check_invariants", "unsafe"})


def may_call(node: Node) -> bool:
    """Return whether a file may contain a function node."""
    may, is_recurrent = _by_name(str(node.implementation))
    if may is not None:
        return may
    return _ARGUMENTS.isdisjoint(node.kwargs) and (not is_recurrent or _is_padded(node))


@functools.lru_cache(maxsize=1024)
def _by_name(implementation: str) -> tuple[bool | None, bool]:
    """Return if a file may call a function (None: the arguments decide), and if it is recurrent."""
    package, _, rest = implementation.partition(".")
    if package != "torch" or implementation.startswith(_IN_PYTHON):
        return True, False
    if rest.startswith("ops."):
        # In torch.ops.aten.add.Tensor, add is the operation and Tensor the overload.
        _, name, form = [*rest.split(".", 3)[1:], "", ""][:3]
        if "out" in form.split("_"):
            return False, False
    else:
        name = rest.rpartition(".")[2]
        if name in _CHECKED:
            return True, False
    return None if _is_checked(name) else False, name in _RECURRENT


def _is_padded(node: Node) -> bool:
    args = node.args or ()
    return len(args) > _FLAG and type(args[_FLAG]) is bool


def _is_checked(name: str) -> bool:
    if name in _EXCEPTIONS:
        return True
    words = name.strip("_").split("_")
    is_method = name.startswith("__") and name.endswith("__")
    if not name or name in _NAMES or (name.startswith("_") and not is_method):
        return False
    return _WORDS.isdisjoint(words)
