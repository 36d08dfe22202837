"""The family of networks of an image: decided where nobody says, frozen, told, and gone on with."""

import json
from fractions import Fraction

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests.commands import check_refusal, tierscale
from tierscale.models import kind as kinds
from tierscale.models.contract.kind import Kind
from tierscale.models.kind import Judgement
from tierscale.pipeline.plan import tiers as tiers_module
from tierscale.pipeline.run import prescan
from tierscale.pipeline.run.array import upscale_array
from tierscale.pipeline.run.family import choose

GRAINY = Judgement(Kind(0.1, 7.3, 55), 8e-4, {"clean": 9e-4, "photo": 6e-4})
CLEAN = Judgement(Kind(0.0, 0.2, None), 8e-4, {"clean": 5e-4, "photo": 6e-4})
HOPELESS = Judgement(Kind(2.5, 0.0, None), 5e-4, {"clean": 6e-4, "photo": 5.5e-4})


@pytest.mark.parametrize(
    ("judgement", "may_refuse", "family"),
    [
        (GRAINY, True, "photo"),
        (CLEAN, True, "clean"),
        (HOPELESS, True, "none"),
        (HOPELESS, False, "photo"),
        # No damage that is known: the photo family must be much better.
        (Judgement(CLEAN.kind, 8e-4, {"clean": 6e-4, "photo": 5.6e-4}), True, "clean"),
        (Judgement(CLEAN.kind, 8e-4, {"clean": 6e-4, "photo": 5.4e-4}), True, "photo"),
        # Hardly better than bicubic, which invents nothing.
        (Judgement(GRAINY.kind, 8e-4, {"clean": 9e-4, "photo": 7.95e-4}), True, "none"),
        (Judgement(GRAINY.kind, 8e-4, {"clean": 9e-4, "photo": 7.95e-4}), False, "photo"),
        # Hardly better: the picture keeps its own grain.
        (Judgement(GRAINY.kind, 8e-4, {"clean": 6e-4, "photo": 5.98e-4}), True, "clean"),
    ],
)
def test_the_family_that_errs_least_is_chosen(judgement, may_refuse, family):
    assert choose(judgement, may_refuse) == family


@pytest.fixture
def judged(monkeypatch):
    """What images are judged to be; the photo family's networks are the clean ones of ×2."""
    verdict, asked = [GRAINY], []
    network = kinds.KindNetwork(Fraction(4))
    from tierscale.pipeline.run import draft, family

    monkeypatch.setattr(draft, "load_kind_network", lambda scale: network)
    monkeypatch.setattr(family, "load_kind_network", lambda scale: network)
    monkeypatch.setitem(tiers_module.PHOTO_TIERS, Fraction(4), ("bicubic", "fsrcnn-x4"))

    def judge(self, draft, network, quality):
        asked.append((draft, quality))
        return verdict[0]

    monkeypatch.setattr(prescan.Prescan, "judge", judge)
    return verdict, asked


def upscale(capsys, source, output, *more):
    command = ("upscale", source, output, "--ray", "none", "--json", "--policy", "light")
    code, out, err = tierscale(capsys, *command, *more)
    assert code == 0, err
    return json.loads(out)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.fromarray(skimage.data.coffee()[:64, :80]).save(path, quality=55)
    return path


def test_a_damaged_photo_gets_photo_networks_and_is_told_so(capsys, judged, photo, tmp_path):
    found = upscale(capsys, photo, tmp_path / "out.zarr")
    assert found["family"] == "photo" and set(found["tiles"]) == {"bicubic", "fsrcnn-x4"}
    assert found["kind"] == {"blur": 0.1, "grain": 7.3, "jpeg_quality": 55}
    assert any(
        "grain of about 7 levels, JPEG about 55: photo networks" in n for n in found["notes"]
    )
    stored = json.loads((tmp_path / "out.zarr.tierscale" / "plan.json").read_text())
    assert stored["family"] == "photo" and stored["kind"] == found["kind"]


def test_the_judge_is_told_what_the_tables_of_a_jpeg_say(capsys, judged, photo, tmp_path):
    _, asked = judged
    upscale(capsys, photo, tmp_path / "a.zarr")
    Image.open(photo).save(tmp_path / "b.png")
    upscale(capsys, tmp_path / "b.png", tmp_path / "b.zarr")
    assert [quality for _, quality in asked] == [55, None]


def test_what_is_asked_for_is_not_decided(capsys, judged, photo, tmp_path):
    _, asked = judged
    clean = upscale(capsys, photo, tmp_path / "clean.zarr", "--family", "clean")
    named = upscale(
        capsys, photo, tmp_path / "named.zarr", "--tiers", "bicubic", "--family", "photo"
    )
    wanted = upscale(capsys, photo, tmp_path / "photo.zarr", "--family", "photo")
    assert [one["family"] for one in (clean, named, wanted)] == ["clean", None, "photo"]
    assert [one["kind"] for one in (clean, named, wanted)] == [None] * 3 and not asked


def test_only_photos_and_scans_are_decided_on(capsys, judged, tmp_path):
    _, asked = judged
    coffee = skimage.data.coffee()[:48, :56]
    Image.fromarray(coffee).convert("RGBA").save(tmp_path / "alpha.png")
    np.save(tmp_path / "deep.npy", coffee.astype(np.uint16) * 257)
    for name in ("alpha.png", "deep.npy"):
        found = upscale(capsys, tmp_path / name, tmp_path / f"{name}.zarr")
        assert found["family"] == "clean"
    assert not asked


def test_a_finished_and_a_begun_output_keep_their_family(capsys, judged, photo, tmp_path):
    verdict, asked = judged
    out = tmp_path / "out.zarr"
    upscale(capsys, photo, out)
    verdict[0] = CLEAN
    again = upscale(capsys, photo, out)
    assert again["family"] == "photo" and again["shards"]["written"] == 0 and len(asked) == 1
    refused = tierscale(
        capsys, "upscale", photo, out, "--ray", "none", "--policy", "light", "--family", "clean"
    )
    check_refusal(refused, 2, "family photo, now clean")
    assert upscale(capsys, photo, out, "--overwrite")["family"] == "clean"


def test_a_picture_that_no_family_helps_gets_bicubic(capsys, judged, photo, tmp_path):
    verdict, _ = judged
    verdict[0] = HOPELESS
    out = tmp_path / "out.zarr"
    code, text, err = tierscale(capsys, "upscale", photo, out, "--ray", "none", "--json")
    assert code == 0, err
    found = json.loads(text)
    assert found["family"] == "none" and set(found["tiles"]) == {"bicubic"}
    assert any("no network is expected to be better than bicubic" in n for n in found["notes"])


def test_arrays_are_decided_on_too(judged):
    pixels = skimage.data.coffee()[:48, :56].transpose(2, 0, 1)
    photo, clean = (upscale_array(pixels, policy="full", family=f) for f in ("auto", "clean"))
    named = upscale_array(pixels, policy="full", tiers="bicubic,fsrcnn-x4")
    assert np.array_equal(photo, named) and not np.array_equal(photo, clean)


def test_a_scale_without_photo_networks_is_refused_and_stays_clean(capsys, photo, tmp_path):
    command = ("upscale", photo, tmp_path / "out.zarr", "--ray", "none", "--scale", "3")
    check_refusal(
        tierscale(capsys, *command, "--family", "photo"), 2, "no photo networks for scale 3"
    )
    found = upscale(capsys, photo, tmp_path / "out.zarr", "--scale", "3")
    assert (found["family"], found["kind"]) == ("clean", None)


def test_the_strength_of_photo_networks_is_frozen_and_gone_on_with(capsys, photo, tmp_path):
    output = tmp_path / "out.zarr"
    options = ("--family", "photo", "--policy", "full")
    command = ("upscale", photo, output, "--ray", "none", "--json", *options)
    code, out, err = tierscale(capsys, *command, "--denoise", "0.5")
    mix = "edsr-x4*0.5+edsr-x4-photo*0.5"
    assert code == 0, err
    assert json.loads(out)["tiles"][mix] == 1
    code, out, _ = tierscale(capsys, *command)
    assert code == 0 and json.loads(out)["tiles"][mix] == 1, "what is not written is as begun"
    check_refusal(tierscale(capsys, *command, "--denoise", "1"), 2, "--overwrite")


@pytest.mark.parametrize(
    "more", [("--family", "clean"), ("--tiers", "bicubic,edsr-x4"), ("--tiers", "bicubic")]
)
def test_a_strength_of_photo_networks_that_are_not_there_is_refused(capsys, photo, more, tmp_path):
    command = ("plan", photo, tmp_path / "out.zarr", "--denoise", "0.5", *more)
    check_refusal(tierscale(capsys, *command), 2, "strength of photo networks")


def test_a_strength_above_one_is_refused(capsys, photo, tmp_path):
    command = ("plan", photo, tmp_path / "out.zarr", "--denoise", "1.5", "--family", "photo")
    check_refusal(tierscale(capsys, *command), 2, "between 0 and 1")


def test_no_strength_is_the_clean_network(photo):
    pixels = np.asarray(Image.open(photo))
    clean = upscale_array(pixels, tiers="edsr-x4")
    assert np.array_equal(upscale_array(pixels, tiers="edsr-x4-photo", denoise=0), clean)
    half = upscale_array(pixels, tiers="edsr-x4-photo", denoise=0.5)
    full = upscale_array(pixels, tiers="edsr-x4-photo")
    assert not np.array_equal(half, full) and not np.array_equal(half, clean)
