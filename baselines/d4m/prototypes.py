"""Prototypes: the centres of mini-batch k-means over the latents of a class."""

from __future__ import annotations

import numpy as np
import torch


def prototypes(latents: torch.Tensor, clusters: int, batch: int, seed: int) -> torch.Tensor:
    """Centres of scikit-learn's ``MiniBatchKMeans`` fed ``batch`` latents at a time, in the order given.

    As ``distillation/gen_prototype.py``: ``n_init="auto"``, one pass, a remainder is fed if it holds at least
    ``clusters`` latents (theirs does that for one class only, whichever label the last batch ends with).

    Args:
        latents: float ``[n, c, h, w]`` with n >= clusters.
        batch: at least ``clusters``.

    Returns:
        float32 ``[clusters, c, h, w]``.
    """
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    model = MiniBatchKMeans(clusters, random_state=seed, batch_size=batch, n_init="auto")
    flat = latents.flatten(1).double().numpy()
    with threadpool_limits(1):  # sums over OpenMP threads would depend on their number
        for start in range(0, len(flat), batch):
            part = flat[start : start + batch]
            if len(part) == batch or len(part) >= clusters:
                model.partial_fit(part)
    return torch.from_numpy(model.cluster_centers_.astype(np.float32)).view(clusters, *latents.shape[1:])
