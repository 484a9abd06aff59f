"""Side effects of everyday model code: the rebuilt model has them, or the capture names them."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError, CaptureError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)
NAN, INF = float("nan"), float("inf")


class _Model(nn.Module):
    def __init__(self, **held: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        for name, value in held.items():
            setattr(self, name, value)


def Model(forward, **held):  # noqa: N802 -- it makes one
    return type("Model", (_Model,), {"forward": forward})(**held)


def _again(model, args=None, **options):
    return lg.to_torch(lg.to_ir(model, args, **options), model.state_dict())


def _comes_back(model, *args, others=(), **options):
    again = _again(model, args, **options)
    for each in (args, *others):
        torch.manual_seed(5)
        wanted = model(*each)
        torch.manual_seed(5)
        assert bitwise_equal(again(*each), wanted)


# --- values that equal nothing, not even themselves ---

UNUSUAL = {
    "floats": torch.tensor([1.0, NAN, -INF, -0.0]),
    "doubles": torch.tensor([1.0, NAN, INF, -0.0], dtype=torch.float64),
    "halves": torch.tensor([1.0, NAN, INF, -0.0], dtype=torch.float16),
    "bfloat16": torch.tensor([1.0, NAN, INF, -0.0], dtype=torch.bfloat16),
    "complex": torch.full((4,), complex(NAN, 1)),
    "wide complex": torch.full((4,), complex(1, NAN), dtype=torch.complex128),
    "conjugated": torch.full((4,), complex(INF, NAN)).conj(),
    "of none": torch.empty(0),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_constants_may_hold_nan(name):
    def forward(self, x):
        if self.edge.is_complex():
            return x.sum() + torch.view_as_real(self.edge.resolve_conj())
        return x.sum() + self.edge

    _comes_back(Model(forward, edge=UNUSUAL[name]), X)


@pytest.mark.parametrize("inputs", [None, (X,)], ids=["traced", "run"])
@pytest.mark.parametrize("held", [[NAN, 1.0, 2.0, INF], (-INF, NAN, 0.0, -0.0)])
def test_plain_numbers_may_be_nan(held, inputs):
    model = Model(lambda self, x: x + torch.tensor(self.held), held=held)
    assert bitwise_equal(_again(model, inputs)(X), model(X))


def test_a_buffer_that_becomes_a_negative_zero_is_put_back():
    model = Model(lambda self, x: x + self.zero.mul_(-1))
    model.register_buffer("zero", torch.zeros(4))
    lg.to_ir(model, (X,))
    assert not torch.signbit(model.zero).any()


# --- comparisons that tensors decline ---

COMPARISONS = {
    "== None": lambda self, x, y=None: x if y == None else x + y,  # noqa: E711
    "!= None": lambda self, x, y=None: x + y if y != None else x,  # noqa: E711
    "in a tuple": lambda self, x, y=None: x if y in (None, "auto") else x + y,
    "a string": lambda self, x, y=None: x if (x + 1) == "same" else x * 2,
    "an object": lambda self, x, y=None: x if x == object() else x * 2,
}


@pytest.mark.parametrize("args", [(X,), (X, X)], ids=["without", "with"])
@pytest.mark.parametrize("compared", COMPARISONS)
def test_what_a_tensor_is_not_compared_with_leaves_no_trace(compared, args):
    model = Model(COMPARISONS[compared])
    _comes_back(model, *args)
    nodes = str(lg.to_ir(model, args))
    assert "__eq__" not in nodes
    assert "layergraph.assume(" not in nodes


@pytest.mark.parametrize("compared", ["== None", "a string", "in a tuple"])
def test_it_is_traced_too(compared):
    forward = COMPARISONS[compared]
    model = Model(lambda self, x: forward(self, x, x * 1))
    assert bitwise_equal(_again(model)(X), model(X))


@pytest.mark.parametrize("equal", [torch.allclose, torch.Tensor.allclose])
def test_questions_take_arguments_by_name(equal):
    model = Model(lambda self, x, y: x if equal(x, y, rtol=1e-3, atol=1.0) else y)
    again = _again(model, (X, X + 0.5), values="assume")
    assert bitwise_equal(again(X, X), X)
    with pytest.raises(AssumptionError):
        again(X, X + 2)


# --- what does nothing to results ---


def _in_a_profile(self, x):
    with torch.profiler.record_function("head"):
        x = self.linear(x)
    with torch.autograd.profiler.record_function("tail", "said"):
        return x * 2


@torch.profiler.record_function("decorated")
def _decorated(self, x):
    return self.linear(x)


def _warns(self, x):
    warnings.warn("this layer is old", DeprecationWarning, stacklevel=1)
    return self.linear(x)


@pytest.mark.parametrize("inputs", [None, (X,)], ids=["traced", "run"])
@pytest.mark.parametrize("forward", [_in_a_profile, _decorated, _warns])
def test_profiles_and_warnings_are_no_part_of_a_graph(forward, inputs):
    model = Model(forward)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("default")
        before = {
            *globals(),
            "__warningregistry__",
        }  # the registry of warnings that Python has shown
        again = _again(model, inputs)
        assert globals().keys() <= before
        assert bitwise_equal(again(X), model(X))
    assert "profiler" not in str(lg.to_ir(model, inputs))


def test_assigning_a_global_that_the_next_call_reads_is_refused():
    def forward(self, x):
        globals()["_assigned"] = globals().get("_assigned", 0) + 1
        return x * globals()["_assigned"]

    model = Model(forward)
    with pytest.raises(CaptureError, match="_assigned"):
        lg.to_ir(model)


# --- tensors and devices, made in the older ways ---

MADE = {
    "FloatTensor": lambda self, x: x * torch.FloatTensor([0.5, 1, 2, NAN]),
    "LongTensor": lambda self, x: x[:, torch.LongTensor([3, 0])],
    "BoolTensor": lambda self, x: x[:, torch.BoolTensor([True, False, True, False])],
    "Tensor": lambda self, x: x + torch.Tensor([[1], [2], [3]]),
    "Tensor of a tuple": lambda self, x: x + torch.Tensor((1, 2, 3, 4)),
    "Tensor of a size": lambda self, x: x + torch.Tensor(3, 4).fill_(2),
    "changed in place": lambda self, x: torch.FloatTensor([1, 2, 3, 4]).add_(x[0]),
    "a type": lambda self, x: (x * 3).type(torch.LongTensor),
    "the name of a type": lambda self, x: (x * 3).type("torch.DoubleTensor"),
    "a device": lambda self, x: x + torch.zeros(4, device=torch.device("cpu")),
    "a device by number": lambda self, x: x.to(torch.device(type="cpu")) * 2,
}


@pytest.mark.parametrize("made", MADE)
def test_what_is_made_in_older_ways_comes_back(made):
    model = Model(MADE[made])
    _comes_back(model, X)
    again = _again(model, (X,))
    for _ in range(2):  # each call makes a new tensor
        assert bitwise_equal(again(X), model(X))


# Without inputs, the capture keeps the tensors of one call as constants.
@pytest.mark.parametrize(
    "made", [name for name in MADE if name not in ("changed in place", "Tensor of a size")]
)
def test_what_is_made_in_older_ways_is_traced(made):
    model = Model(MADE[made])
    assert bitwise_equal(_again(model)(X), model(X))


def test_a_number_of_another_input_is_not_kept_in_such_a_tensor():
    model = Model(lambda self, x: x * torch.FloatTensor([x.sum().item()]))
    with pytest.raises(CaptureError, match="read out of a tensor"):
        lg.to_ir(model, (X,), values="refuse")
    with pytest.raises(CaptureError, match=r"cannot hold the number -?\d"):
        lg.to_ir(model, (X,))
    with pytest.raises(CaptureError, match="cannot hold the number 3"):
        lg.to_ir(Model(lambda self, x: x * torch.FloatTensor([x.shape[0]])), (X,))


def test_a_number_of_another_input_follows_it_into_a_tensor():
    _comes_back(Model(lambda self, x: x * torch.tensor([x.sum().item()])), X, others=[(X + 1,)])


def test_memory_of_numpy_is_not_taken_for_a_constant():
    numpy = pytest.importorskip("numpy")
    for made in (torch.DoubleTensor, torch.FloatTensor):
        model = Model(lambda self, x, made=made: x + made(self.held), held=numpy.ones(4))
        with pytest.raises(CaptureError, match="does not see"):
            lg.to_ir(model, (X,))


# --- functions of sizes ---

OF_SIZES = {
    "broadcast_shapes": lambda self, x, y: x.expand(torch.broadcast_shapes(x.shape, y.shape)) * 2,
    "of parts": lambda self, x, y: y * torch.broadcast_shapes((1, x.shape[0]), (1, 1))[1],
    "sym_min": lambda self, x, y: x * torch.sym_min(x.shape[0], 100),
    "sym_max": lambda self, x, y: x * torch.sym_max(x.shape[0] // 2, y.shape[0] * 3),
    "sym_int": lambda self, x, y: x * torch.sym_int(x.shape[0] / 2),
    "sym_float": lambda self, x, y: x / torch.sym_float(x.shape[0]),
}


@pytest.mark.parametrize("name", OF_SIZES)
def test_what_is_computed_of_sizes_is_a_size(name):
    others = [(torch.randn(6, 4), torch.randn(2, 6, 4)), (torch.randn(7, 4), torch.randn(1, 7, 4))]
    _comes_back(Model(OF_SIZES[name]), X, torch.randn(2, 3, 4), others=others)


@pytest.mark.parametrize("name", [name for name in OF_SIZES if name != "of parts"])
def test_it_is_computed_of_traced_sizes_too(name):
    model = Model(OF_SIZES[name])
    again = _again(model)
    for args in ((X, torch.randn(2, 3, 4)), (torch.randn(6, 4), torch.randn(2, 6, 4))):
        assert bitwise_equal(again(*args), model(*args))


# --- functions and modules as arguments of functions ---

DISTANCES = {
    "a new module": lambda self: nn.PairwiseDistance(),
    "a module of the model": lambda self: self.distance,
    "a lambda": lambda self: lambda a, b: (a - b).abs().amax(-1),
    "a function of torch": lambda self: functools.partial(F.pairwise_distance, p=1.0),
    "a method": lambda self: self.distance.forward,
}


@pytest.mark.parametrize("name", DISTANCES)
def test_a_function_that_is_given_code_is_traced_through(name):
    def forward(self, a, b, c):
        given = DISTANCES[name](self)
        return F.triplet_margin_with_distance_loss(a, b, c, distance_function=given, swap=True)

    more = tuple(torch.randn(3, 5, 4))
    _comes_back(Model(forward, distance=nn.PairwiseDistance()), X, X + 1, X - 1, others=[more])


# --- dicts ---


class Inner(nn.Module):
    def forward(self, features):
        return features["user", "to", "item"] * features[("item", 1)] + features[3]


@pytest.mark.parametrize("inputs", [None, (X,)], ids=["traced", "run"])
def test_dicts_may_have_tuples_as_keys(inputs, tmp_path):
    def forward(self, x):
        given = {("user", "to", "item"): x, ("item", 1): x + 1, 3: x * 2}
        return self.inner(given)

    model = Model(forward, inner=Inner())
    ir = lg.to_ir(model, inputs)
    lg.save(ir, tmp_path / "m.safetensors", model.state_dict())
    for again in (lg.to_torch(ir, model.state_dict()), lg.load_model(tmp_path / "m.safetensors")):
        assert bitwise_equal(again(X), model(X))


def test_inputs_may_be_such_dicts():
    args = ({("user", "to", "item"): X, ("item", 1): X + 1, 3: X},)
    _comes_back(Model(lambda self, features: Inner()(features)), *args)


def test_a_key_that_no_dict_of_a_graph_can_have_is_named():
    model = Model(lambda self, x: self.inner({Inner: x}), inner=nn.Identity())
    with pytest.raises(CaptureError, match=r"the key .*Inner.*of a dict"):
        lg.to_ir(nn.Sequential(model), (X,))


def test_types_of_numbers_are_dtypes(tmp_path):
    def forward(self, x):
        made = torch.zeros(3, dtype=int), torch.ones(3, dtype=bool), torch.zeros(3, dtype=complex)
        return x.to(float), x.to(dtype=int), *made

    model = Model(forward)
    for args in (None, (X,)):
        lg.save(lg.to_ir(model, args), tmp_path / "m.json")
        again = lg.to_torch(lg.load(tmp_path / "m.json"))
        assert bitwise_equal(again(X), model(X))


# --- function transforms ---

TRANSFORMS = {
    "vmap": lambda self, x: torch.vmap(torch.sin)(x),
    "torch.func.vmap": lambda self, x: torch.func.vmap(self.linear)(x),
    "grad": lambda self, x: torch.func.grad(lambda y: y.sin().sum())(x),
    "jvp": lambda self, x: torch.func.jvp(torch.sin, (x,), (x,))[1],
    "vjp": lambda self, x: torch.func.vjp(torch.sin, x)[1](x)[0],
    "jacrev": lambda self, x: torch.func.jacrev(torch.sin)(x),
    "jacfwd": lambda self, x: torch.func.jacfwd(self.linear)(x),
    "hessian": lambda self, x: torch.func.hessian(lambda y: self.linear(y).sin().sum())(x),
    "jacobian of autograd": lambda self, x: torch.autograd.functional.jacobian(self.linear, x),
}
MADE_BEFORE = {
    "jacrev": torch.func.jacrev(torch.sin),
    "hessian": torch.func.hessian(torch.sum),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_function_transforms_come_back(name):
    _comes_back(Model(TRANSFORMS[name], linear=nn.Linear(X.shape[-1], 3)), X)


@pytest.mark.parametrize("name", MADE_BEFORE)
def test_functions_that_a_transform_has_made_before_are_refused_by_name(name):
    model = Model(lambda self, x: MADE_BEFORE[name](x))
    with pytest.raises(CaptureError, match=r"function transform of torch\.func") as raised:
        lg.to_ir(model, (X,))
    assert "INTERNAL ASSERT" not in str(raised.value)
    assert model(X) is not None
