"""PCSR's automatic decision (arXiv 2407.21448, section 3.4): thresholds of difficulty, found by k-means over the whole image and frozen."""

from collections.abc import Sequence

import numpy as np

# As published: iterations counting the one that brings the centroids to their start, and the squared change that ends it.
ROUNDS = 20
SETTLED = 1e-4


def thresholds(difficulties: np.ndarray, samplers: int = 2) -> tuple[float, ...]:
    """Difficulties, rising, above which a pixel is given to the next heavier sampler: samplers - 1 of them.

    difficulties: of all pixels, any shape, 0..1. They are rescaled to 0..1 by their smallest and largest, and clustered; each threshold
    lies half way between two neighbouring groups. Where all are equal there is nothing to tell apart, and none exceeds the thresholds.
    """
    values = np.sort(difficulties.astype(np.float32), axis=None)
    low, high = float(values[0]), float(values[-1])
    if high <= low:
        return (high,) * (samplers - 1)
    scaled = (values - np.float32(low)) / np.float32(high - low)
    # The published code's single centroid for two clusters ends up at the mean and at 0 after one round.
    start = [float(scaled.mean(dtype=np.float64)), 0.0] if samplers == 2 else np.linspace(0.0, 1.0, samplers).tolist()
    ends = np.flatnonzero(np.diff(_cluster(scaled, start)))
    found = [float((values[end].astype(np.float64) + values[end + 1]) / 2) for end in ends]
    # An empty group leaves fewer borders than groups; the heaviest groups are then empty.
    return tuple(found + [high] * (samplers - 1 - len(found)))


def _cluster(values: np.ndarray, centroids: Sequence[float]) -> np.ndarray:
    """Group of each value by k-means from given centroids, as the labels were before the centroids' last change: (n,)."""
    # Here, and not above, because torch takes two seconds to import and most readers of this module do not cluster.
    import torch
    from fast_pytorch_kmeans import KMeans

    rounds = ROUNDS - 1 if len(centroids) == 2 else ROUNDS
    model = KMeans(n_clusters=len(centroids), mode="euclidean", max_iter=rounds, tol=SETTLED)
    start = torch.tensor(centroids, dtype=torch.float32)[:, None]
    return model.fit_predict(torch.from_numpy(values[:, None]), centroids=start).numpy()
