"""What names are built from, and warm starts."""

import pytest
import torch

from tierscale.models.backbones.edsr import Edsr
from tierscale.models.train.recipes import build, recipe, warm_start

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_warm_start_takes_what_fits() -> None:
    spec, _ = recipe("fsrcnn-x2")
    source, network = build(recipe("fsrcnn-x4")[0], 3), build(spec, 4)
    assert warm_start(network, source.state_dict()) == []
    carn, larger = build(recipe("carn-x2")[0], 0), build(recipe("carn-x4")[0], 1)
    assert warm_start(carn, larger.state_dict()) == []
    assert torch.equal(carn.state_dict()["entry.weight"], larger.state_dict()["entry.weight"])
    shallow, deeper = Edsr(4, 2, 8), Edsr(4, 5, 8)
    assert warm_start(deeper, shallow.state_dict())[0] == "blocks.2.first.bias"
    lr = torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(deeper(lr), shallow(lr), rtol=0, atol=1e-6)
    with pytest.raises(ValueError, match="no recipe for 'carn-x5'"):
        recipe("carn-x5")
