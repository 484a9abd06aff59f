"""Parts of tensors: the bytes of each part, and no others."""

from __future__ import annotations

import itertools

import pytest
import torch

from layergraph_files.regions import region_shape, spans, whole

SHAPES = [(), (1,), (6,), (4, 6), (2, 3, 4), (3, 1, 2), (0, 3), (3, 0)]


def _cuts(size):
    return [[(0, size)], [(0, size // 2)], [(size // 2, size)], [(0, size // 3), (size // 2, size)]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int16, torch.uint8])
def test_the_bytes_of_every_part(shape, dtype):
    tensor = torch.arange(torch.Size(shape).numel(), dtype=dtype).view(shape)
    numbers = tensor.numpy().tobytes()
    for region in itertools.product(*map(_cuts, shape)):
        part = tensor
        for dim, runs in enumerate(region):
            part = torch.cat([part.narrow(dim, start, stop - start) for start, stop in runs], dim)
        read = b"".join(
            numbers[start : start + length]
            for start, length in spans(shape, region, dtype.itemsize)
        )
        assert read == part.contiguous().numpy().tobytes()
        assert region_shape(region) == tuple(part.shape)


def test_ranges_are_as_long_as_they_can_be():
    assert list(spans((8, 4, 2), whole((8, 4, 2)), 4)) == [(0, 256)]
    assert list(spans((8, 4, 2), [[(2, 6)], [(0, 4)], [(0, 2)]], 4)) == [(64, 128)]
    assert list(spans((8, 4), [[(2, 4)], [(0, 2)]], 4)) == [(32, 8), (48, 8)]
