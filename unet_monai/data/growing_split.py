"""A split into training and validation that stays true while images are annotated one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

TRAINING, VALIDATION = "training", "validation"


def grow_split(names: Iterable[str], earlier: Mapping[str, str], *, validation: float = 0.2) -> dict[str, str]:
    """Give each new image its use, training or validation, and leave the earlier ones theirs for good.

    A network must never be validated on an image that it was trained on, also not in an earlier round. A new image
    validates if the share of validation images then is at most `validation`, else it trains: with the default the
    fifth image is the first one to validate. All images ever seen count, also those without a label today.

    Args:
        names: the images annotated by now, in any order: several new ones are taken in the order of their names.
        earlier: the use of each image seen before, as this function returned it.
        validation: greatest share of images that validate, from 0 to 1.

    Returns:
        The use of each image, "training" or "validation", the earlier ones first.

    Raises:
        ValueError: for a share outside [0, 1].

    Example:
        >>> first = grow_split(["a", "c"], {}, validation=0.4)
        >>> first, grow_split(["a", "b", "c"], first, validation=0.4)
        ({'a': 'training', 'c': 'training'}, {'a': 'training', 'c': 'training', 'b': 'validation'})
    """
    if not 0 <= validation <= 1:
        raise ValueError(f"validation must be a share between 0 and 1, got {validation}.")
    uses = dict(earlier)
    for name in sorted(set(names) - set(uses)):
        validating = sum(use == VALIDATION for use in uses.values()) + 1
        uses[name] = VALIDATION if validating <= validation * (len(uses) + 1) else TRAINING
    return uses
