"""How a classifier learns to choose among networks of different size.

For each pixel (PCSR) or tile (ClassSR).
"""

from torch import Tensor

# Share of the heaviest network's error that moves a logit by one.
SPREAD = 0.05


def uneven(shares: Tensor) -> Tensor:
    """How far the mean use of each network is from an equal one.

    shares: probabilities (N, networks, …).
    """
    return (shares.transpose(0, 1).flatten(1).mean(dim=1) - 1 / shares.shape[1]).abs().sum()


def expected_error(shares: Tensor, errors: Tensor) -> Tensor:
    """Squared error that choosing by probabilities leaves, less their entropy.

    As a share of the heaviest network's error. shares, errors: (N, networks, …). Without the
    entropy, probabilities would go to 0 and 1 however little is at stake. With it a logit is the
    error that is expected of its network, in units of SPREAD, so that shifting the logits gives up
    first what has least to lose. The square is what PSNR asks for.
    """
    left = (shares * errors).sum(dim=1).mean() / errors[:, -1].mean()
    entropy = -(shares * shares.clamp_min(1e-9).log()).sum(dim=1).mean()
    return left - SPREAD * entropy
