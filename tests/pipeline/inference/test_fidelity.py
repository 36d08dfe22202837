"""How faithful a finished shard is: values, alpha, no-data, rims, ragged tiles, sampled rows."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from tests.plans import draft_of, plan_of
from tierscale.models.fidelity import CAP
from tierscale.pipeline.inference.fidelity import FidelityRule, MadeShard, measure, worst
from tierscale.pipeline.inference.shard import read_input
from tierscale.pipeline.plan.value_range import ValueRange

SIZE, TILE = (70, 90), 32


def plan_for(pixels, scale=4, value_range=None, **more):
    """A plan of an image (c, h, w)."""
    colour = {1: "grey", 3: "rgb", 4: "rgba"}.get(len(pixels), "channels")
    dtype = pixels.dtype
    known = {"shape": pixels.shape, "dtype": dtype.name, "colour": colour, "scale": Fraction(scale)}
    high = 255.0 if dtype == np.uint8 else float(np.nanmax(pixels))
    whole = value_range or ValueRange(0.0, high, 0.0, high)
    return plan_of(draft_of(**{**known, "tile": TILE, **more}), value_range=whole)


def picture(channels=3, top=255, dtype=np.uint8, size=SIZE):
    """A smooth picture, which nearest enlargement keeps well."""
    y, x = np.mgrid[: size[0], : size[1]]
    waves = [np.sin(y / 9 + one) + np.cos(x / 7 - one) for one in range(channels)]
    return ((np.stack(waves) / 4 + 0.5) * top * 0.9).astype(dtype)


def enlarged(plan, source, shard=(0, 0)):
    """The source as the output of a perfect network: every pixel repeated (whole scales)."""
    hr, (up, down) = plan.grid.hr(plan.grid.shard_core(shard)), plan.scale.as_integer_ratio()
    rows, columns = (
        np.minimum((np.arange(span.start, span.stop) * down) // up, length - 1)
        for span, length in ((hr.y, SIZE[0]), (hr.x, SIZE[1]))
    )
    return source[:, rows][:, :, columns]


def made(plan, source, pixels=None, shard=(0, 0)):
    def read(y0, y1, x0, x1):
        return source[:, y0:y1, x0:x1]

    held = read_input(plan, read, shard, ())
    return MadeShard(plan, held, shard, enlarged(plan, source, shard) if pixels is None else pixels)


def by_tile(found):
    return {(row, column): fidelity for row, column, fidelity in found}


@pytest.mark.parametrize("scale", [2, 4, "5/2"])
@pytest.mark.parametrize(
    ("dtype", "top"), [(np.uint8, 255), (np.uint16, 3000), (np.float32, 7.5), (np.int32, 90_000)]
)
def test_a_shift_is_seen_whatever_the_type_and_the_scale(dtype, top, scale):
    """Repeated pixels are not far from their source; moved by two they are."""
    source = picture(3, top, dtype)
    plan = plan_for(source, scale)
    sound = made(plan, source)
    fidelity = worst(measure(sound, FidelityRule()))[2]
    moved = replace(sound, pixels=np.roll(sound.pixels, 4 * int(plan.scale), axis=2))
    assert fidelity > 32 and worst(measure(moved, FidelityRule()))[2] < fidelity - 10
    assert len(measure(sound, FidelityRule())) == 3 * 3


def test_it_is_of_the_value_range_and_not_of_the_type():
    """A dim picture is as faithful as a bright one; a range that was asked for counts."""
    source = picture(1, 200, np.uint16)
    bright = (source * 100).astype(np.uint16)
    dim, full = (
        worst(measure(made(plan_for(one), one), FidelityRule())) for one in (source, bright)
    )
    assert dim[2] == pytest.approx(full[2], abs=0.01)
    wide = plan_for(source, value_range=ValueRange(0.0, 2000.0, 0.0, 65535.0))
    narrow = plan_for(source, value_range=ValueRange(0.0, 200.0, 0.0, 65535.0))
    difference = [worst(measure(made(plan, source), FidelityRule()))[2] for plan in (wide, narrow)]
    assert difference[0] - difference[1] == pytest.approx(20.0, abs=0.01)


def test_large_offsets_do_not_drown_in_floats():
    source = picture(1, 10, np.float64) + 1e7
    plan = plan_for(source, value_range=ValueRange(1e7, 1e7 + 10, 1e7, 1e7 + 10))
    low = picture(1, 10, np.float64)
    wanted = worst(
        measure(made(plan_for(low, value_range=ValueRange(0, 10, 0, 10)), low), FidelityRule())
    )
    assert worst(measure(made(plan, source), FidelityRule()))[2] == pytest.approx(
        wanted[2], abs=0.01
    )


def test_a_picture_of_one_value_is_faithful():
    source = np.full((1, *SIZE), 9, np.uint16)
    plan = plan_for(source, value_range=ValueRange(9.0, 9.0, 9.0, 9.0))
    assert {one[2] for one in measure(made(plan, source), FidelityRule())} == {CAP}
    source = np.full((3, *SIZE), 128, np.uint8)
    assert {one[2] for one in measure(made(plan_for(source), source), FidelityRule())} == {CAP}


def test_a_tile_that_is_black_is_the_worst():
    source = picture()
    plan = plan_for(source)
    one = made(plan, source)
    one.pixels[:, 4 * 32 : 4 * 64, 4 * 64 :] = 0
    row, column, fidelity = worst(measure(one, FidelityRule()))
    assert (row, column) == (1, 2) and fidelity < 8
    assert (
        min(f for tile, f in by_tile(measure(one, FidelityRule())).items() if tile == (0, 0)) > 30
    )


@pytest.mark.parametrize("colour", ["straight", "premultiplied"])
def test_pixels_with_alpha_0_do_not_count_nor_does_alpha_itself(colour):
    source = picture(4)
    source[3] = 255
    source[3, 10:20, 10:20] = 0
    plan = plan_for(source, alpha=colour)
    one = made(plan, source)
    clean = by_tile(measure(one, FidelityRule()))
    one.pixels[:3, 4 * 12 : 4 * 18, 4 * 12 : 4 * 18] = 77  # nobody sees these colours
    one.pixels[3] = 0
    # The shrinking reaches two source pixels, which are those with alpha 0 too.
    assert by_tile(measure(one, FidelityRule())) == pytest.approx(clean)
    one.pixels[:3, 4 * 40 : 4 * 46, 4 * 12 : 4 * 18] = 77
    assert by_tile(measure(one, FidelityRule()))[1, 0] < clean[1, 0] - 10


@pytest.mark.parametrize(
    ("dtype", "nodata"), [(np.float32, np.nan), (np.float32, -9999.0), (np.uint8, 0)]
)
def test_pixels_without_data_and_those_that_they_show_in_do_not_count(dtype, nodata):
    source = picture(1, 200, dtype) + np.asarray(20).astype(dtype)
    hole = (slice(None), slice(5, 15), slice(40, 50))
    holed = source.copy()
    holed[hole] = nodata
    values = ValueRange(0.0, 255.0, 0.0, 255.0, nodata)
    plan = plan_for(source, value_range=values)
    clean = by_tile(measure(made(plan, source), FidelityRule()))
    found = by_tile(measure(made(plan, holed), FidelityRule()))
    assert found.keys() == clean.keys() and found[2, 2] == clean[2, 2]
    assert found[0, 1] == pytest.approx(clean[0, 1], abs=2.5), "as if there were no hole"


def test_a_tile_of_which_nothing_is_left_has_no_fidelity():
    source = picture(1, 200, np.float32)
    source[:, :32, :32] = -9999.0
    plan = plan_for(source, value_range=ValueRange(0.0, 255.0, 0.0, 255.0, -9999.0))
    found = by_tile(measure(made(plan, source), FidelityRule()))
    assert (0, 0) not in found and len(found) == 8
    source[:] = -9999.0
    found = measure(made(plan, source), FidelityRule())
    assert found == () and worst(found) is None
    tiny = picture(1, 200, np.uint8, (4, 90))
    assert measure(made(plan_for(tiny), tiny), FidelityRule()) == (), "all of it is rim"


def test_two_source_pixels_at_the_rim_of_a_shard_do_not_count():
    source = picture()
    plan = plan_for(source)
    one = made(plan, source)
    clean = measure(one, FidelityRule())
    # What is shrunk at the third source pixel begins at the middle of the first one.
    one.pixels[:, :, :2], one.pixels[:, :2] = 0, 0
    assert measure(one, FidelityRule()) == clean
    one.pixels[:, :, :12] = 0
    assert by_tile(measure(one, FidelityRule()))[0, 0] < by_tile(clean)[0, 0]


def test_averages_are_for_networks_that_take_grain_away():
    source = picture()
    noisy = np.clip(source + np.random.default_rng(0).normal(0, 8, source.shape), 0, 255)
    noisy = noisy.astype(np.uint8)
    plan = plan_for(source)
    denoised = made(plan, noisy, enlarged(plan, source))
    plain, averaged = (worst(measure(denoised, FidelityRule(block=block)))[2] for block in (1, 8))
    assert plain < 33 and averaged > plain + 8
    swapped = replace(denoised, pixels=denoised.pixels[::-1])
    assert worst(measure(swapped, FidelityRule(block=8)))[2] < 20


def test_shards_meet_their_own_tiles_and_a_ragged_edge():
    """An image of several shards: each measures what it holds, up to the far edge of the image."""
    source = picture(1, 255, np.uint8, (SIZE[0], SIZE[1]))
    for scale in ("4", "5/2"):
        plan = plan_for(source, scale, tile=10)
        tiles = {}
        for shard in plan.grid.all_shards():
            found = by_tile(measure(made(plan, source, shard=shard), FidelityRule()))
            assert not found.keys() & tiles.keys()
            tiles |= found
        assert len(plan.grid.tiles) == 2 and set(tiles) == set(np.ndindex(*plan.grid.tiles))
        assert min(tiles.values()) > 25


def test_some_rows_of_tiles_are_taken_in_turn():
    source = picture(1, 255, np.uint8)
    plan = plan_for(source, tile=8)
    shards = [(0, 0), (0, 1), (1, 0), (1, 1)]
    every = {
        shard: by_tile(measure(made(plan, source, shard=shard), FidelityRule())) for shard in shards
    }
    rows = {}
    for shard in shards:
        found = by_tile(measure(made(plan, source, shard=shard), FidelityRule(every=3)))
        assert found and found.keys() < every[shard].keys()
        first = plan.grid.shard_block(shard)[0].start
        rows[shard] = {row - first for row, _ in found}
        # Only the rims of rows that are looked at by themselves are other pixels.
        assert all(abs(every[shard][tile] - fidelity) < 6 for tile, fidelity in found.items())
        assert {row % 3 for row in rows[shard]} == {sum(shard) % 3}


@pytest.mark.parametrize(
    ("bound", "fidelity", "doubted"),
    [(30.0, 29.9, True), (30.0, 30.0, False), (None, 5.0, False), (30.0, None, False)],
)
def test_a_shard_below_its_bound_is_doubted(bound, fidelity, doubted):
    assert FidelityRule(bound).doubts(fidelity) == doubted
