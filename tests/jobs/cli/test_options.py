"""What options mean: policies by name, by their number, by the names of version 0.1."""

import json

import click
import pytest
from PIL import Image

from tests.commands import FAST, check_refusal, tierscale
from tierscale.jobs.cli.options import PolicyType, TimeType, shared, to_options
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import KINDS, OLD_NAMES, Deadline, MaxLoss
from tierscale.pipeline.run.scoring.scorer import check_options

TIERS = ("--tiers", "bicubic,fsrcnn-x4")


@click.command()
@shared
def command(**cli_args):
    return to_options(cli_args)


def options(*line):
    return command.main(list(line), standalone_mode=False)


def test_every_policy_has_one_name_that_is_shown():
    text = command.get_help(click.Context(command))
    assert all(name in text for name in KINDS)
    assert not [name for name in (*OLD_NAMES, "--lose", "dearest", "cheapest") if name in text]


@pytest.mark.parametrize(("old", "new"), OLD_NAMES.items())
def test_old_names_of_policies_are_the_new_ones(old, new):
    limits = ("--max-loss", "0.1") if new == "max-loss" else ()
    assert options("--policy", old, *limits) == options("--policy", new, *limits)
    assert PolicyType().convert(old, None, None) == new


def test_lose_is_max_loss():
    assert options("--lose", "0.1") == options("--max-loss", "0.1")
    assert options("--lose", "0.1").policy == MaxLoss(0.1)


def test_numbers_alone_imply_their_policies():
    for option, value in (("budget", "0.5"), ("deadline", "90m"), ("threshold", "0.1")):
        assert options(f"--{option}", value).policy.name == option
    assert options("--deadline", "1h30m").policy == Deadline(5400)


def test_an_unknown_policy_is_refused_with_the_names():
    with pytest.raises(click.UsageError, match="'max-loss', 'adaptive'"):
        options("--policy", "luck")


def test_commands_without_an_option_have_its_default():
    assert to_options({}) == options()


@pytest.mark.parametrize("text", ["5", "1,2,3", "a,b"])
def test_a_range_that_is_not_two_numbers_is_refused(text):
    with pytest.raises(Refused, match=f"the range '{text}' is not two numbers"):
        options("--range", text)
    with pytest.raises(Refused, match=f"the region '{text}' is not four whole numbers"):
        options("--region", text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("6h", 21600), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("45", 45), ("0.5h", 1800)],
)
def test_times_as_people_write_them(text, seconds):
    assert TimeType().convert(text, None, None) == seconds


@pytest.mark.parametrize(
    ("cli_args", "words"),
    [
        (("--policy", "budget"), ("policy budget needs a number", "budget")),
        (("--lose", "-1"), ("-1 dB", "0.02")),
        (("--policy", "deadline"), ("give deadline, such as 6h",)),
        (("--deadline", "soon"), ("'soon'", "90m")),
        (("--deadline", "0s"), ("deadline of 0 s",)),
        (("--budget", "0.5", "--policy", "full"), ("budget belongs", "ignored by full")),
    ],
)
def test_policies_that_lack_what_they_need(capsys, image, tmp_path, cli_args, words):
    line = ("plan", image, tmp_path / "o.zarr", "--ray", "none", *TIERS, *cli_args)
    check_refusal(tierscale(capsys, *line), 2, *words)


@pytest.mark.parametrize(
    ("cli_args", "policy"),
    [
        (("--max-loss", "0.05"), {"name": "max-loss", "db": 0.05}),
        (("--policy", "max-loss"), {"name": "max-loss", "db": 0.05}),
        (("--lose", "0.05", "--policy", "quality"), {"name": "max-loss", "db": 0.05}),
        (("--deadline", "5m"), {"name": "deadline", "seconds": 300.0}),
        (("--policy", "dearest"), {"name": "full"}),
        (("--policy", "cheapest"), {"name": "light"}),
    ],
)
def test_the_command_takes_policies_and_goes_on_when_it_is_given_again(
    capsys, image, tmp_path, cli_args, policy
):
    line = (image, tmp_path / "o.zarr", "--ray", "none", "--workers", 1, *TIERS, "--tile", 16)
    code, _, err = tierscale(capsys, "upscale", *line, "--json", *cli_args)
    assert code == 0, err
    stored = json.loads((tmp_path / "o.zarr.tierscale/plan.json").read_text())
    assert stored["policy"] == policy
    code, out, err = tierscale(capsys, "upscale", *line, "--json", *cli_args)
    assert code == 0 and json.loads(out)["shards"]["written"] == 0, err


def test_plan_counts_the_copy_that_stays_with_keep_source(capsys, image, tmp_path):
    line = ("plan", image, tmp_path / "out.zarr", *FAST, "--json")
    plain, more = (
        json.loads(tierscale(capsys, *line, *kept)[1])["disk_bytes"]
        for kept in ((), ("--keep-source",))
    )
    with Image.open(image) as picture:  # a PNG, which is ingested
        copy = picture.width * picture.height * len(picture.getbands())
    assert more == plain + copy
    text = tierscale(capsys, "plan", "--help")[1]
    assert "--overwrite" in text and "--keep-source" in text


def test_a_source_that_is_read_in_place_leaves_no_copy(capsys, image, tmp_path):
    with Image.open(image) as picture:
        picture.save(tmp_path / "a.ppm")
    line = ("plan", tmp_path / "a.ppm", tmp_path / "out.zarr", *FAST, "--json")
    plain, more = (
        json.loads(tierscale(capsys, *line, *kept)[1])["disk_bytes"]
        for kept in ((), ("--keep-source",))
    )
    assert more == plain


def test_a_plan_beside_an_output_of_another_plan_says_so(capsys, image, tmp_path):
    output = tmp_path / "out.zarr"
    assert tierscale(capsys, "upscale", image, output, *FAST)[0] == 0
    same = tierscale(capsys, "plan", image, output, *FAST)
    assert same[0] == 0 and "--overwrite" not in same[1]
    for more, told in ((), "upscale needs --overwrite"), (("--overwrite",), "replaces it"):
        other = tierscale(capsys, "plan", image, output, *FAST, "--tile", "16", *more)
        assert other[0] == 0 and told in other[1], other[2]
    refused = tierscale(capsys, "upscale", image, output, *FAST, "--tile", "16")
    check_refusal(refused, 2, "another plan", "--overwrite")


def test_max_loss_asks_for_a_card_that_knows_the_tiers():
    check_options(options("--max-loss", "0.1", *TIERS))
    with pytest.raises(Refused, match="what bicubic, pcsr-fsrcnn-x4 lose was not measured"):
        check_options(options("--max-loss", "0.1", "--tiers", "bicubic,pcsr-fsrcnn-x4"))


def test_what_is_on_the_command_line_is_written_and_nothing_else():
    assert options().written == {"device"}
    line = ("--scale", "4", "--level", "0", "--blend", "0", "--nodata", "0", "--max-loss", "0.1")
    found = options(*line, "--exact-statistics")
    assert found.written == {
        *("device", "scale", "level", "blend", "nodata", "policy", "exact_statistics")
    }
    assert (found.blend, found.nodata, found.exact_statistics) == (0, 0.0, True)
    assert options("--policy", "adaptive").written == {"device", "policy"}


def test_help_names_the_defaults_that_options_have():
    text = " ".join(command.get_help(click.Context(command)).split())
    default = Options()
    for name in ("scale", "tile", "blend", "level"):
        assert f"(default: {getattr(default, name)})" in text
