"""PSNR and SSIM."""

import pytest
import torch

from tierscale.models.contract.metrics import psnr, ssim

pytestmark = pytest.mark.usefixtures("one_thread")


def test_psnr_and_ssim_of_plain_examples() -> None:
    a = torch.full((3, 20, 20), 0.4)
    assert psnr(a, a, 2) == float("inf")
    assert ssim(a, a, 2) == pytest.approx(1)
    assert psnr(a, a + 10 / 255, 2) == pytest.approx(28.1308, abs=1e-3)
    with pytest.raises(ValueError, match="nothing left"):
        psnr(a, a, 10)


def test_ssim_agrees_with_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics")
    torch.manual_seed(0)
    a = torch.rand(3, 40, 50)
    b = (a + torch.randn(3, 40, 50) * 0.1).clamp(0, 1)
    mine = ssim(a, b, 0)
    counts = [(x * 255).round().numpy().astype("float64")[:, :, :] for x in (a, b)]
    options = {
        "data_range": 255,
        "channel_axis": 0,
        "gaussian_weights": True,
        "sigma": 1.5,
        "use_sample_covariance": False,
    }
    _, full = metrics.structural_similarity(*counts, full=True, **options)
    assert mine == pytest.approx(full[:, 5:-5, 5:-5].mean(), abs=1e-3)
