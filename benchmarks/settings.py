"""The sizes and repetitions of the measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zoo import Entry, all_entries, matching

# Each kind of model, so that a geometric mean over them is not one family's.
VISION = (
    "resnet18 resnet50 densenet121 mobilenet_v3_small efficientnet_b0 convnext_tiny vit_b_32 swin_t"
).split()
TEXT = (
    "BertModel GPT2Model T5Model LlamaModel MixtralModel MambaModel ViTModel CLIPModel "
    "WhisperModel Wav2Vec2Model"
).split()
QUICK = ("resnet18", "vit_b_32", "BertModel", "LlamaModel")


@dataclass(frozen=True)
class Settings:
    """The sizes and repetitions of the measures.

    Attributes:
        quick: whether to take a few minutes only.
        pattern: the models, as a shell pattern of names or families; None: the default selection.
    """

    quick: bool = False
    pattern: str | None = None

    @property
    def rounds(self) -> int:
        """The number of rounds of each variant, unless it is too slow."""
        return 3 if self.quick else 9

    @property
    def patience(self) -> float:
        """The seconds after which a variant gets no further round."""
        return 1.0 if self.quick else 5.0

    @property
    def largest(self) -> int:
        """The most layers that models of one shape are made of."""
        return 3_000 if self.quick else 100_000

    def entries(self, *libraries: str) -> list[Entry]:
        """The models of the zoo that are measured, of all libraries if none is named."""
        if self.pattern is not None:
            found = matching(all_entries(), self.pattern)
        else:
            names = [f"torchvision/{each}" for each in VISION]
            names += [f"transformers/{each}" for each in TEXT]
            by_name = {each.name: each for each in all_entries()}
            found = [by_name[name] for name in names if not self.quick or _is_quick(name)]
        return [each for each in found if not libraries or each.name.startswith(libraries)]


def _is_quick(name: str, quick: Sequence[str] = QUICK) -> bool:
    return name.partition("/")[2] in quick
