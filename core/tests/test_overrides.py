"""Methods of nn.Module that a class overrides: carried over, or refused by name; never lost."""

from __future__ import annotations

import copy
import pickle
import types

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import BuildError, CaptureError, InvalidIrError
from layergraph.testing import bitwise_equal

X = torch.randn(3, 4)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.body = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.freeze = True

    def forward(self, x):
        return self.body(self.stem(x))


def _with(**methods):
    return type("Own", (Net,), methods)()


def _frozen_norm(self, mode=True):
    nn.Module.train(self, mode)
    if self.freeze:
        self.body[0].eval()
    return self


def _drops_always(self, mode=True):
    nn.Module.train(self, mode)
    self.body[1].train()
    return self


def _never_trains(self, mode=True):
    return nn.Module.train(self, False)


def _stays(self, mode=True):
    return self


class Backbone(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = _with(train=_frozen_norm)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.net(x))


class Nested(Backbone):
    def train(self, mode=True):
        super().train(mode)
        self.net.stem.train(False)
        return self


class EvalNorm(nn.BatchNorm1d):
    def train(self, mode=True):
        return super().train(False)


def _assigned():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)).eval()
    model[1].train = types.MethodType(_stays, model[1])
    return model.train()


def _assigned_to_the_whole():
    model = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)).eval()
    model.train = types.MethodType(_stays, model)
    return model


KEPT = {
    "a norm stays in evaluation": lambda: _with(train=_frozen_norm),
    "dropout goes on": lambda: _with(train=_drops_always),
    "it never trains": lambda: _with(train=_never_trains),
    "all stays as it is": lambda: _with(train=_stays),
    "inside another model": Backbone,
    "one inside another": Nested,
    "a layer of torch with its own": lambda: nn.Sequential(nn.Linear(4, 4), EvalNorm(4)),
    "assigned to a layer": _assigned,
    "assigned to the model": _assigned_to_the_whole,
}


def _modes(model):
    return [each.training for each in model.modules()]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", KEPT)
def test_train_leaves_the_same_modes(name, training, tmp_path):
    model = KEPT[name]()
    nn.Module.train(model, training)
    before = (
        _modes(model),
        copy.deepcopy(model.state_dict()),
        [dict(vars(m)) for m in model.modules()],
    )
    ir = lg.to_ir(model, (X,))
    assert (_modes(model), [dict(vars(m)) for m in model.modules()]) == (before[0], before[2])
    assert lg.Ir.from_dict(ir.to_dict()) == ir
    assert any(each.kept_modes for each in ir.values())
    lg.save(ir, tmp_path / "model.safetensors", model.state_dict())
    assert lg.load(tmp_path / "model.safetensors") == ir
    rebuilt = lg.to_torch(ir, model.state_dict())
    models = [model, rebuilt, copy.deepcopy(rebuilt), pickle.loads(pickle.dumps(rebuilt))]
    models.append(lg.load_model(tmp_path / "model.safetensors"))
    for switch in ("train", "eval", "train"):
        seen = [_modes(getattr(each, switch)()) for each in models]
        assert all(each == seen[0] for each in seen), switch
    assert lg.verify(model, (X,)).ok


def test_it_computes_the_same_in_training():
    model = _with(train=_frozen_norm)
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    for each in (model, rebuilt):
        each.train()
        each.body[1].p = 0.0
    assert bitwise_equal(model(X), rebuilt(X))
    assert bitwise_equal(model.body[0].running_mean, rebuilt.body[0].running_mean)


def _merges(self, mode=True):
    nn.Module.train(self, mode)
    if not mode:
        self.stem.weight.data += 1
    return self


def _replaces(self, mode=True):
    self.stem.weight.data = self.stem.weight.data * 2
    return nn.Module.train(self, mode)


def _remembers(self, mode=True):
    self.was = mode
    return nn.Module.train(self, mode)


def _remembers_inside(self, mode=True):
    self.body[0].momentum = 0.1 if mode else 0.2
    return nn.Module.train(self, mode)


def _freezes(self, mode=True):
    for each in self.body.parameters():
        each.requires_grad = not mode
    return nn.Module.train(self, mode)


def _one_way(self, mode=True):
    return self if mode else nn.Module.train(self, False)


def _evaluates_the_norm(self):
    self.body[0].eval()
    return self


def _keeps_float32(self, fn, recurse=True):
    nn.Module._apply(self, fn, recurse)
    self.stem.bias.data = self.stem.bias.data.float()
    return self


def _half_of_it(self):
    self.body.half()
    return self


def _double_is_float(self):
    return nn.Module.float(self)


def _some(self, wanted=True):
    self.stem.requires_grad_(wanted)
    return self


def _scaled(self, state_dict, *args, **kwargs):
    scaled = {key: value * 2 for key, value in state_dict.items()}
    return nn.Module.load_state_dict(self, scaled, *args, **kwargs)


def _own_weights(self, state_dict, prefix, *args):
    self.scale.data.copy_(state_dict[prefix + "scale"].abs())


def _of_the_stem(self, recurse=True):
    return self.stem.parameters(recurse)


class Scaled(Net):
    _load_from_state_dict = _own_weights

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return super().forward(x) * self.scale


REFUSED = {
    "train": [_merges, _replaces, _remembers, _remembers_inside, _freezes, _one_way],
    "eval": [_evaluates_the_norm],
    "_apply": [_keeps_float32],
    "half": [_half_of_it],
    "double": [_double_is_float],
    "requires_grad_": [_some],
    "zero_grad": [lambda self, set_to_none=True: None],
    "load_state_dict": [_scaled],
    "parameters": [_of_the_stem],
}
EACH = [(name, method) for name, methods in REFUSED.items() for method in methods]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("name", "method"), EACH)
def test_what_cannot_be_carried_over_is_refused(name, method, training):
    model = _with(**{name: method})
    nn.Module.train(model, training)
    weights = copy.deepcopy(model.state_dict())
    wanting = [each.requires_grad for each in model.parameters()]
    members = [dict(vars(each)) for each in model.modules()]
    for args in ((X,), None):
        with pytest.raises(CaptureError, match=rf"'the model' \(Own\).* overrides {name}\b"):
            lg.to_ir(model, args)
        with pytest.raises(CaptureError, match=r"'0\.1' \(Own\)"):
            lg.to_ir(nn.Sequential(nn.Sequential(nn.Identity(), model)), args)
    report = str(lg.preflight(model, (X,)))
    assert name in report
    assert "Own" in report
    assert bitwise_equal(model.state_dict(), weights)
    assert [each.requires_grad for each in model.parameters()] == wanting
    assert [dict(vars(each)) for each in model.modules()] == members


def test_loading_that_changes_a_value_is_refused():
    with pytest.raises(CaptureError, match="_load_from_state_dict"):
        lg.to_ir(Scaled(), (X,))


def _renamed(self, state_dict, *args, **kwargs):
    plain = {key.removeprefix("module."): value for key, value in state_dict.items()}
    return nn.Module.load_state_dict(self, plain, *args, **kwargs)


def _old_keys(self, state_dict, prefix, *args):
    if f"{prefix}old" in state_dict:
        state_dict[f"{prefix}new"] = state_dict.pop(f"{prefix}old")
    nn.Module._load_from_state_dict(self, state_dict, prefix, *args)


def _noted_device(self, *args, **kwargs):
    self.place = args
    return nn.Module.to(self, *args, **kwargs)


def _half_and_say(self):
    assert self.freeze
    return super(Net, self).half()


def _raises_when_training(self, mode=True):
    if mode:
        raise RuntimeError("for inference only")
    return nn.Module.train(self, mode)


def _loop(self, data, epochs=3):
    raise SystemExit


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("load_state_dict", _renamed),
        ("_load_from_state_dict", _old_keys),
        ("to", _noted_device),
        ("half", _half_and_say),
        ("_apply", lambda self, fn, recurse=True: nn.Module._apply(self, fn, recurse)),
        ("parameters", lambda self, recurse=True: nn.Module.parameters(self, recurse)),
        ("train", lambda self, mode=True: nn.Module.train(self, mode)),
        ("train", _raises_when_training),
        ("train", _loop),
        ("eval", lambda self: self.train(False)),
        ("type", "a type"),
    ],
)
def test_what_behaves_as_torchs_is_no_obstacle(name, method):
    model = _with(**{name: method})
    ir = lg.to_ir(model, (X,))
    assert not any(each.kept_modes for each in ir.values())


def test_gradients_that_train_turns_off_are_no_obstacle_once_they_are():
    model = _with(train=_freezes)
    for each in model.body.parameters():
        each.requires_grad = False
    with pytest.raises(CaptureError, match="want gradients"):
        lg.to_ir(model, (X,))

    def once(self, mode=True):
        for each in self.body.parameters():
            each.requires_grad = False
        return nn.Module.train(self, mode)

    model = _with(train=once).train()
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert [each.requires_grad for each in rebuilt.train().parameters()] == [
        True,
        True,
        False,
        False,
    ]


class Doubled(nn.Linear):
    """It runs code around forward."""

    def __call__(self, *args, **kwargs):
        return super().__call__(*args, **kwargs) * 2


class InBothModes(Doubled):
    def __call__(self, x):
        y = super().__call__(x).exp()
        return nn.functional.dropout(y * 2, 0.5) if self.training else y


class OfOtherArguments(Doubled):
    def __call__(self, x, scale=2.0, *, bias=None):
        y = super().__call__(torch.tanh(x) * scale)
        return y if bias is None else y + bias


class AroundTwoCalls(Doubled):
    def __call__(self, x):
        return self.forward(x), super().__call__(-x)


class Recursive(Doubled):
    def __call__(self, x, depth=0):
        return self(x * 2, depth + 1) if depth < 2 else super().__call__(x)


AROUND = [Doubled, InBothModes, OfOtherArguments, AroundTwoCalls, Recursive]


@pytest.mark.parametrize("make", AROUND)
@pytest.mark.parametrize("with_inputs", [True, False])
@pytest.mark.parametrize("is_root", [True, False])
def test_code_around_forward_is_kept(make, with_inputs, is_root):
    model = make(4, 4)
    model.register_forward_hook(lambda _module, _args, result: result + 1)
    if not is_root:
        model = nn.Sequential(nn.ReLU(), nn.Sequential(model))
    ir = lg.to_ir(model, (X,) if with_inputs else None)
    for training in (True, False):
        if with_inputs or make is not InBothModes or training:
            rebuilt = lg.to_torch(ir, model.state_dict()).train(training)
            torch.manual_seed(0)
            expected = model.train(training)(X)
            torch.manual_seed(0)
            assert bitwise_equal(rebuilt(X), expected)


def test_arguments_of_a_call_that_forward_does_not_take():
    model, bias = OfOtherArguments(4, 4), torch.randn(4)
    ir = lg.to_ir(model, (X,), {"scale": 3.0, "bias": bias})
    rebuilt = lg.to_torch(ir, model.state_dict())
    assert bitwise_equal(rebuilt(X, 3.0, bias=-bias), model(X, 3.0, bias=-bias))


def test_a_mode_of_what_is_not_there_is_refused():
    model = _with(train=_frozen_norm)
    ir = lg.to_ir(model, (X,))
    assert ir["root"].kept_modes == {"body.0": False}
    ir["root"].kept_modes = {"body.7": False}
    with pytest.raises(BuildError, match=r"body\.7"):
        lg.to_torch(ir, model.state_dict())
    ir["root"].kept_modes = {"body.0": 3}
    with pytest.raises(InvalidIrError, match=r"body\.0"):
        lg.to_torch(ir, model.state_dict())


class Held(nn.Module):
    """A metric that a model holds and never calls. Its casts do nothing."""

    def __init__(self, *buffers):
        super().__init__()
        self.counts = torch.zeros(2)
        for index, buffer in enumerate(buffers):
            self.register_buffer(f"state_{index}", buffer)

    def double(self):
        return self

    float = half = double


class WithMetric(nn.Module):
    def __init__(self, *buffers):
        super().__init__()
        self.metric = Held(*buffers)
        self.layer = nn.Linear(4, 4)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.parametrize("buffers", [(), (torch.zeros(2, dtype=torch.int64),)])
def test_a_cast_of_no_numbers_is_no_obstacle(buffers):
    model = WithMetric(*buffers)
    rebuilt = lg.to_torch(lg.to_ir(model, (X,)), model.state_dict())
    assert list(rebuilt.state_dict()) == list(model.state_dict())
    assert bitwise_equal(rebuilt.double()(X.double()), model.double()(X.double()))


def test_a_cast_that_leaves_numbers_as_they_are_is_refused():
    with pytest.raises(CaptureError, match=r"double\(\), which casts otherwise"):
        lg.to_ir(WithMetric(torch.zeros(2)), (X,))


class CachedBias(nn.Module):
    """Computes a table of its weights once in evaluation, and again after training, as LeViT."""

    def __init__(self):
        super().__init__()
        self.weight, self.tables = nn.Parameter(torch.randn(4)), {}

    def train(self, mode=True):
        super().train(mode)
        if mode and self.tables:
            self.tables = {}
        return self

    def forward(self, x):
        if self.training:
            return x + self.weight.exp()
        if x.device not in self.tables:
            self.tables[x.device] = self.weight.exp()
        return x + self.tables[x.device]


def test_a_table_that_training_clears_is_not_kept_over_training():
    model, x = CachedBias().eval(), torch.randn(2, 4)
    with torch.no_grad():
        model(x)
    again = lg.to_torch(lg.to_ir(model, (x,)), model.state_dict())
    assert model.tables
    assert bitwise_equal(again(x), model(x))
    with pytest.raises(lg.errors.AssumptionError, match="training of"):
        again.train()(x)
