"""From the scores of the network to the probability of cell."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.config.type_definitions import NdarrayOrTensor
from monai.transforms import MapTransform, Transform
from monai.utils import TransformBackends, convert_data_type, convert_to_dst_type, ensure_tuple


def logits_to_probability(logits: torch.Tensor) -> torch.Tensor:
    """Turn scores into the probability of no background: 1 - the softmax of channel 0.

    Args:
        logits: scores before the softmax, tensor (C, *S), C >= 2, channel 0 background (membrane).

    Returns:
        float32 tensor (*S), in [0, 1].

    Raises:
        ValueError: if `logits` has fewer than two channels.

    Example:
        >>> logits_to_probability(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
        tensor([0.5000, 0.2689, 0.7311])
    """
    if logits.ndim < 2 or logits.shape[0] < 2:
        raise ValueError(f"logits must have two or more channels, (C, *S), got shape {tuple(logits.shape)}.")
    return 1 - torch.softmax(logits.float(), dim=0)[0]


class LogitsToProbability(Transform):
    """Turn scores into the probability of cell; see `logits_to_probability`.

    Example:
        >>> LogitsToProbability()(torch.tensor([[[0.0, 0.0, 0.0]], [[0.0, 1.0, 9.0]]]))
        tensor([[[0.5000, 0.7311, 0.9999]]])
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012 (MONAI's attribute)

    def __call__(self, logits: NdarrayOrTensor) -> NdarrayOrTensor:
        """Compute the probability.

        Args:
            logits: scores before the softmax, (C, *S), C >= 2, array or tensor.

        Returns:
            float32 (1, *S) of the same kind, on the same device, with the same metadata.

        Raises:
            ValueError: if `logits` has fewer than two channels.
        """
        scores = convert_data_type(logits, torch.Tensor)[0]
        return convert_to_dst_type(logits_to_probability(scores)[None], logits, dtype=torch.float32)[0]


class LogitsToProbabilityd(MapTransform):
    """Dictionary form of `LogitsToProbability`; the scores stay.

    Args:
        keys: keys of the scores.
        name: keys to write the probabilities to, one for each of `keys`.
        allow_missing_keys: do not raise if a key is missing.

    Raises:
        ValueError: if `name` and `keys` differ in number.
    """

    backend = LogitsToProbability.backend

    def __init__(self, keys: KeysCollection, name: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.names: tuple[Hashable, ...] = ensure_tuple(name)
        if len(self.names) != len(self.keys):
            raise ValueError(f"name must hold one key for each of {self.keys}, got {self.names}.")
        self.transform = LogitsToProbability()

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        """Return a copy of `data` with the probabilities added."""
        pairs = self.key_iterator(data, self.names)
        return {**data, **{name: self.transform(data[key]) for key, name in pairs}}
