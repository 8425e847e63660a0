"""What readers who differed say of a lesion: the soft label that the review left in the truth, as a training target."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from converters.annotation import Lesion
from converters.errors import TaxonomyError
from converters.taxonomy import Target, Taxonomy
from ml_backend.preprocessing import Floats


def target_shares(lesion: Lesion, index: int, target: Target, taxonomy: Taxonomy) -> Floats:
    """The share of readers behind each class (C,), summing to 1; all on class `index` where nobody differed."""
    shares: NDArray[np.float32] = np.zeros(len(taxonomy.classes(target)), dtype=np.float32)
    for code, share in lesion.probabilities:
        try:
            shares[taxonomy.class_index(taxonomy.resolve(code), target)] += share
        except TaxonomyError:
            return _certain(shares, index)  # a model's reading, in display names: no reader's word
    total = float(shares.sum())
    if not np.isfinite(total) or abs(total - 1) > 0.01:
        return _certain(shares, index)
    return np.asarray(shares / total, dtype=np.float32)


def agreed(lesion: Lesion) -> float:
    """The share of readers behind a lesion's own diagnosis, in (0, 1]; 1 where nobody differed or it is open."""
    own = [share for code, share in lesion.probabilities if code == lesion.diagnosis]
    return min(max(own[0], 0.05), 1.0) if own else 1.0


def loss_weight(lesion: Lesion, strength: float) -> float:
    """How much a lesion counts in the loss, in (0, 1]: 1 without disagreement, at strength 1 the share that agreed."""
    return 1 - strength * (1 - agreed(lesion))


def _certain(shares: Floats, index: int) -> Floats:
    return np.asarray(np.eye(len(shares), dtype=np.float32)[index])
