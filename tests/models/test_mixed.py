"""A*0.3+B*0.7: weights between those of two networks, known by a digest of both and the shares."""

from fractions import Fraction

import pytest
import torch

from tierscale.models import registry, weights
from tierscale.models.contract.checkpoints import WeightsFile, parse_checkpoint
from tierscale.models.contract.upscaler import Placement
from tierscale.models.mixed import mixed, mixed_digest, mixed_files, parse_mix, write_mix

MIX = "edsr-x4*0.3+edsr-x4-photo*0.7"


def enlarged(name):
    pixels = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1))
    return registry.load(name)(pixels, Placement.whole((12, 16), Fraction(4))).pixels


def tensors(*names):
    return [parse_checkpoint(WeightsFile.read(weights.locate(name))).tensors for name in names]


def test_weights_lie_between_those_of_the_parts_by_their_shares():
    parts = parse_mix(MIX)
    assert write_mix(parts) == MIX
    found = mixed(parts, [WeightsFile.read(weights.locate(part.name)) for part in parts])
    clean, photo = tensors("edsr-x4", "edsr-x4-photo")
    assert found.tensors.keys() == clean.keys()
    for key, value in found.tensors.items():
        assert torch.allclose(value, 0.3 * clean[key] + 0.7 * photo[key], atol=1e-6)


def test_all_of_one_part_is_that_network():
    assert torch.equal(enlarged("edsr-x4*0+edsr-x4-photo*1"), enlarged("edsr-x4-photo"))
    assert not torch.allclose(enlarged(MIX), enlarged("edsr-x4-photo"), atol=1e-3)


def test_a_mix_costs_what_one_network_does_and_can_be_turned():
    scale = Fraction(4)
    assert registry.load(MIX).cost(scale) == registry.load("edsr-x4").cost(scale)
    assert registry.load(f"{MIX}+2").cost(scale) == 2 * registry.load("edsr-x4").cost(scale)
    assert registry.tier_key(f"{MIX}+2@0.5").endswith("+2@0.5")


def test_a_mix_is_known_by_its_parts_and_shares():
    found = registry.load_weights(MIX)
    assert found.weights == registry.digest(MIX) == registry.digest(f"{MIX}+8")
    others = {registry.digest(name) for name in ("edsr-x4*0.4+edsr-x4-photo*0.6", "edsr-x4")}
    assert found.weights not in others
    assert registry.holds(MIX, found.weights) and not registry.holds(MIX, "0" * 64)
    assert registry.load_weights(MIX, weights=found.weights).upscaler is found.upscaler


def test_a_plan_keeps_the_weights_of_its_time():
    """edsr-x4 has had two weights: the mix with the older ones is found by its digest."""
    older = [one for one in weights.stored("edsr-x4") if one != weights.newest("edsr-x4")]
    parts = parse_mix(MIX)
    wanted = mixed_digest(parts, [older[0], weights.newest("edsr-x4-photo")])
    assert wanted != registry.digest(MIX)
    assert registry.holds(MIX, wanted)
    assert registry.load_weights(MIX, weights=wanted).weights == wanted
    files = mixed_files(parts, wanted)
    assert files is not None and older[0][:8] in files[0].name


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("edsr-x4*0.3+edsr64-x4*0.7", "not of one architecture"),
        ("edsr-x4*0.3+edsr-x4-photo*0.6", "add up to 0.9"),
        ("edsr-x4*0.3", "not written A"),
        ("edsr-x4*0.3+edsr-x4-photo", "not written A"),
        ("none*0.3+edsr-x4*0.7", "no upscaler 'none'"),
    ],
)
def test_what_is_no_mix_is_refused(name, words):
    with pytest.raises(ValueError, match=words):
        registry.load(name)


def test_a_mix_with_other_weights_than_the_plans_is_refused():
    with pytest.raises(ValueError, match="the plan has 000000000000"):
        registry.load_weights(MIX, weights="0" * 64)


def test_a_file_with_an_asterisk_in_its_name_is_no_mix(tmp_path):
    path = tmp_path / "a*0.5+b.safetensors"
    path.write_bytes(weights.locate("edsr-x4").read_bytes())
    assert parse_mix(f"file:{path}") == ()
    assert registry.digest(f"file:{path}") == registry.digest("edsr-x4")
