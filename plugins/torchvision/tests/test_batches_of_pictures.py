"""A loop over pictures that keeps boxes: no picture need keep as many as another one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision.ops import batched_nms, clip_boxes_to_image, remove_small_boxes

import layergraph as lg
from layergraph.testing import bitwise_equal


class Keeps(nn.Module):
    """The last step of a detector: for each picture, the best boxes that do not overlap."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(4, 1)

    def forward(self, pictures: list[torch.Tensor]):
        results = []
        for picture in pictures:
            scores = self.scores(picture).flatten().sigmoid()
            boxes = clip_boxes_to_image(picture, (50, 60))
            keep = torch.where(scores > 0.5)[0]
            boxes, scores = boxes[keep], scores[keep]
            keep = remove_small_boxes(boxes, min_size=2)
            boxes, scores = boxes[keep], scores[keep]
            keep = batched_nms(boxes, scores, torch.zeros_like(scores), 0.5)[:10]
            results.append({"boxes": boxes[keep], "scores": scores[keep]})
        return results


def pictures(*counts):
    corners = [torch.rand(count, 2) * 40 for count in counts]
    return ([torch.cat([each, each + torch.rand_like(each) * 20], 1) for each in corners],)


@pytest.mark.parametrize("training", [False, True])
def test_each_picture_keeps_its_own_boxes(training):
    torch.manual_seed(1)
    model = Keeps().train(training)
    rebuilt = lg.to_torch(lg.to_ir(model, pictures(9, 12)))
    rebuilt.load_state_dict(model.state_dict())
    rebuilt.train(training)
    kept = set()
    for counts in ((5,), (9, 0), (7, 3, 1), (0, 0), (1, 30, 2, 8)):
        for _ in range(3):
            given = pictures(*counts)
            expected = model(*given)
            kept |= {len(each["boxes"]) for each in expected}
            assert bitwise_equal(rebuilt(*given), expected)
    assert {0, 1} < kept
