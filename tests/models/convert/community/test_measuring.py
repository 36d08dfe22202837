"""What networks of others cost and take, found without running them on pictures."""

import warnings

import pytest
import torch

from tests.models.convert.community.networks import compact, in_eights, needs_spandrel, span, swin
from tierscale.models.convert import community
from tierscale.models.convert.community import measuring

pytestmark = [pytest.mark.usefixtures("one_thread"), needs_spandrel]


def descriptor_of(network):
    spandrel = community.import_spandrel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return spandrel.ModelLoader().load_from_state_dict(network.state_dict()).eval()


def test_tensors_that_live_at_the_same_time_are_counted():
    with measuring.Living() as living:
        first = torch.zeros(100)
        second = first + 1
        del first
        third = second * 2
        assert living.now == 2 * 400
        del second, third
    assert living.now == 0 and living.most == 2 * 400


@pytest.mark.parametrize(
    ("make", "multiple"), [(compact, 1), (span, 1), (swin, 64), (in_eights, 64)]
)
def test_where_windows_may_begin(make, multiple):
    assert measuring.multiple_of(descriptor_of(make())) == multiple


@pytest.mark.parametrize(("make", "changes"), [(compact, False), (swin, False), (span, True)])
def test_networks_that_write_to_themselves_are_known(make, changes):
    assert measuring.changes_itself(descriptor_of(make()), (16, 16)) == changes


@pytest.mark.parametrize("make", [compact, swin, span])
def test_maps_that_functions_make_are_counted(make):
    """At least the input, the result and one map of features live at the same time."""
    descriptor = descriptor_of(make())
    with measuring.Living() as living, torch.no_grad():
        descriptor._call_fn(descriptor.model, torch.zeros(1, 3, 32, 32))
    found = measuring.peak_bytes(descriptor, (32, 32))
    assert found >= 4 * 3 * 32 * 32 * (1 + descriptor.scale**2)
    assert found == pytest.approx(living.most, rel=0.2)
