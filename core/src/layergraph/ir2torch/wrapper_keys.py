"""State dicts of wrapped models: the keys of the model inside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping

import torch

from layergraph.ir2torch.load import Key

# The names under which wrappers of torch register the model that they wrap.
_NAMES = frozenset({"_checkpoint_wrapped_module", "_fsdp_wrapped_module", "_orig_mod", "module"})


def under_plain_keys(
    wanted: Collection[Key], state_dict: Mapping[str, torch.Tensor]
) -> Mapping[str, torch.Tensor]:
    """Return the state dict of a wrapped model under the keys of the model inside.

    ``DistributedDataParallel`` adds ``module.`` to each key, ``torch.compile`` adds ``_orig_mod.``.
    A key stands for another key only if the model has no tensor with the first one, and exactly one
    tensor whose key equals it after the wrappers' names are removed.

    Args:
        wanted: the tensors of the model.
        state_dict: the state dict. Its tensors are read later.
    """
    if not isinstance(state_dict, Mapping):
        return state_dict
    keys = [key for key, _, persists in wanted if persists]
    unknown = set(state_dict).difference(keys)
    if not any(isinstance(key, str) and not _NAMES.isdisjoint(key.split(".")) for key in unknown):
        return state_dict
    missing = [key for key in keys if key not in state_dict]
    inside = {_plain(key): key for key in missing}
    given = {key: _plain(key) for key in unknown if isinstance(key, str)}
    wants, gives = Counter(map(_plain, missing)), Counter(given.values())
    sources = {
        inside[plain]: key for key, plain in given.items() if wants[plain] == gives[plain] == 1
    }
    return _Renamed(state_dict, sources) if sources else state_dict


def _plain(key: str) -> str:
    return ".".join(name for name in key.split(".") if name not in _NAMES)


class _Renamed(Mapping[str, torch.Tensor]):
    """A state dict with other keys.

    Args:
        state_dict: the state dict.
        sources: by new key, the key in the state dict.
    """

    def __init__(self, state_dict: Mapping[str, torch.Tensor], sources: Mapping[str, str]) -> None:
        self._state_dict = state_dict
        renamed = {old: new for new, old in sources.items()}
        self._sources = {renamed.get(key, key): key for key in state_dict}

    def __getitem__(self, key: str) -> torch.Tensor:
        return self._state_dict[self._sources[key]]

    def __contains__(self, key: object) -> bool:
        return key in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __len__(self) -> int:
        return len(self._sources)
