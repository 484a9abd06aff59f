"""The pass ``fold-batchnorm``."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import layergraph as lg
from layergraph.errors import AssumptionError

torchvision = pytest.importorskip("torchvision")


def randomized(model: nn.Module) -> nn.Module:
    """Give each batch norm statistics and weights that do something."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 1.5)
            if module.affine:
                module.weight.data.uniform_(0.5, 1.5)
                module.bias.data.normal_(0, 0.2)
    return model.eval()


def norms(ir: lg.Ir) -> list[str]:
    return [each.name for each in ir.values() if each.type.startswith("batchnorm")]


def close(one: torch.Tensor, other: torch.Tensor, bound: float = 1e-5) -> bool:
    return bool((one - other).abs().max() <= bound * one.abs().max())


def folded(model: nn.Module, x: torch.Tensor, *, left: int = 0):
    randomized(model)
    state = model.state_dict()
    before = copy.deepcopy(state)
    ir, new, report = lg.run_passes(lg.to_ir(model, (x,)), ["fold-batchnorm"], state)
    assert len(norms(ir)) == left, str(report)
    rebuilt = lg.to_torch(ir, new)
    assert not rebuilt.training
    with torch.no_grad():
        assert close(model(x), rebuilt(x))
    assert all(torch.equal(before[key], state[key]) for key in state)
    return ir, new, report


CONVS = {
    "conv1d": (lambda **o: nn.Conv1d(4, 6, 3, **o), nn.BatchNorm1d, (2, 4, 9)),
    "conv2d": (lambda **o: nn.Conv2d(4, 6, 3, **o), nn.BatchNorm2d, (2, 4, 9, 9)),
    "conv3d": (lambda **o: nn.Conv3d(4, 6, 3, **o), nn.BatchNorm3d, (2, 4, 5, 5, 5)),
    "transposed1d": (lambda **o: nn.ConvTranspose1d(4, 6, 3, **o), nn.BatchNorm1d, (2, 4, 9)),
    "transposed2d": (lambda **o: nn.ConvTranspose2d(4, 6, 3, **o), nn.BatchNorm2d, (2, 4, 9, 9)),
    "transposed3d": (lambda **o: nn.ConvTranspose3d(4, 6, 3, **o), nn.BatchNorm3d, (2, 4, 3, 3, 3)),
}


@pytest.mark.parametrize("kind", CONVS)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_after(kind: str, groups: int, bias: bool, affine: bool) -> None:
    conv, norm, shape = CONVS[kind]
    model = nn.Sequential(
        conv(groups=groups, bias=bias, padding=1), norm(6, affine=affine, eps=0.1)
    )
    ir, state, report = folded(model, torch.randn(shape))
    assert ir["0"].data["bias"] is True
    assert list(state) == ["0.weight", "0.bias"]
    assert [str(each) for each in report.entries] == ["fold-batchnorm: root:_1: folded into '0'"]
    running = model[1]
    scale = (running.running_var.double() + 0.1).rsqrt()
    if affine:
        scale = scale * running.weight.double()
    old = model[0].bias.double() if bias else 0
    shift = (old - running.running_mean.double()) * scale
    shift = shift + running.bias.double() if affine else shift
    assert torch.equal(state["0.bias"], shift.float())


@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "conv3d"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_before(kind: str, groups: int, bias: bool) -> None:
    conv, norm, shape = CONVS[kind]
    folded(nn.Sequential(norm(4), conv(groups=groups, bias=bias)), torch.randn(shape))


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_batch_norm_before_padding_with_values(mode: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3, padding=1, padding_mode=mode))
    folded(model, torch.randn(2, 4, 9, 9))


def test_linear_before_and_after() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.BatchNorm1d(3),
                          nn.Linear(3, 5, bias=False))  # fmt: skip
    ir, state, _ = folded(model, torch.randn(6, 4))
    assert list(state) == ["0.weight", "0.bias", "4.weight", "4.bias"]
    assert ir["4"].data["bias"] is True


@pytest.mark.parametrize("first", ["linear", "norm"])
def test_a_guard_refuses_other_ranks_beside_a_linear_layer(first: str) -> None:
    layers = [nn.Linear(3, 3), nn.BatchNorm1d(3)]
    model = nn.Sequential(*(layers if first == "linear" else layers[::-1]))
    ir, state, _ = folded(model, torch.randn(6, 3))
    with pytest.raises(AssumptionError, match="had 2 dimensions"):
        lg.to_torch(ir, state)(torch.randn(2, 3, 3))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_and_frozen_parameters_stay(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).to(dtype)
    model.requires_grad_(requires_grad=False)
    ir, state, _ = lg.run_passes(
        lg.to_ir(randomized(model)), ["fold-batchnorm"], model.state_dict()
    )
    rebuilt = lg.to_torch(ir, state)
    assert [(each.dtype, each.requires_grad) for each in rebuilt.parameters()] == [
        (dtype, False)
    ] * 2
    x = torch.randn(2, 3, 8, 8, dtype=dtype)
    bound = 1e-12 if dtype == torch.float64 else 0.05
    assert close(model(x), rebuilt(x), bound)


def test_two_norms_after_each_other() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    folded(model, torch.randn(2, 3, 8, 8))


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.other = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.other(self.conv(self.norm(self.conv(x)).relu()))


class Branch(Twice):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x)
        return self.norm(y).relu() + y


class Reads(Twice):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu() + self.conv.weight.sum()


class Written(Twice):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x * 1
        y = self.norm(x)
        x.add_(1)
        return self.conv(y) + x


def tied() -> nn.Module:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 3, 1))
    model[3].weight = model[0].weight
    return model


REFUSED = {
    "shared": (Twice(), "2 nodes call 'conv'", 2),
    "branch": (Branch(), "other nodes read the value of 'conv'", 2),
    "reads": (Reads(), "the tensors of 'conv' are used elsewhere", 2),
    "written": (Written(), "cannot pass", 2),
    "tied": (tied(), "is tied to 'weight' of", 1),
    "statistics": (
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        "it keeps no statistics", 1),
    "padding": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)), "with zeros", 1),
    "same": (nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding="same")), "with zeros", 1),
    "transposed": (nn.Sequential(nn.BatchNorm2d(3), nn.ConvTranspose2d(3, 3, 3)), "border", 1),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_norm_stays_with_the_reason(case: str) -> None:
    model, reason, left = REFUSED[case]
    _, state, report = folded(copy.deepcopy(model), torch.randn(2, 3, 8, 8), left=left)
    assert report.refused, "nothing is reported"
    assert all(reason in each.text for each in report.refused), str(report)
    assert list(state) == list(model.state_dict())


def test_a_norm_in_training_mode_stays() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    ir, _, report = lg.run_passes(lg.to_ir(model), ["fold-batchnorm"], model.state_dict())
    assert norms(ir) == ["1"]
    assert "training mode" in report.refused[0].text


# The norms that are left: those that no convolution stands beside, by the structure of the model.
DENSE = {"densenet121": 62, "densenet161": 82, "densenet169": 86, "densenet201": 102}
UNCALLED = {"inception_v3": 2}  # the auxiliary classifier, which eval mode does not call
PRE_NORMS = {"maxvit_t": 11}  # one in each of 2 + 2 + 5 + 2 layers, before a composite
SIZES = {"inception_v3": 96, "googlenet": 64}


FAMILIES = (
    "densenet efficientnet googlenet inception maxvit mnasnet mobilenet regnet resnet resnext "
    "shufflenet wide_resnet"
).split()


def classifiers() -> list[str]:
    from torchvision import models

    return [
        name
        for name in models.list_models(models)
        # The largest one needs more memory than machines for tests have.
        if (name.startswith(tuple(FAMILIES)) or name.endswith("_bn")) and "128gf" not in name
    ]


QUICK = ["resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"]


def check_classifier(name: str, folder: Path) -> None:
    from torchvision import models

    options = {"init_weights": False} if name in SIZES else {}
    model = models.get_model(name, **options)
    size = SIZES.get(name, 224 if name.startswith("maxvit") else 64)
    x = torch.randn(1, 3, size, size)
    ir, state, _ = folded(model, x, left=(DENSE | PRE_NORMS | UNCALLED).get(name, 0))
    gone = {name for name, each in model.named_modules() if isinstance(each, nn.BatchNorm2d)}
    gone -= set(norms(ir))
    changed = {key.rpartition(".")[0] for key in state.keys() - model.state_dict().keys()}
    for key, tensor in model.state_dict().items():
        path = key.rpartition(".")[0]
        if path in gone:
            assert key not in state
        elif path + ".bias" in state and (path in changed or state[key] is not tensor):
            continue
        else:
            assert torch.equal(state[key], tensor), key
    path = folder / "model.safetensors"
    lg.save(ir, path, state)
    again = lg.load_model(path)
    with torch.no_grad():
        assert close(model(x), again(x))


@pytest.mark.parametrize("name", QUICK)
def test_a_classifier(name: str, tmp_path: Path) -> None:
    check_classifier(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", classifiers())
def test_every_classifier(name: str, tmp_path: Path) -> None:
    check_classifier(name, tmp_path)
