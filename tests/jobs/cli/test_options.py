"""What options mean, and names of version 0.1 that are still accepted."""

import click
import pytest

from tests.commands import FAST, check_refusal, tierscale
from tierscale.jobs.cli.options import (
    OLD_POLICIES,
    POLICIES,
    PolicyType,
    core_policy,
    shared,
    to_options,
)
from tierscale.pipeline.errors import Refused
from tierscale.pipeline.routing.policies import POLICIES as CORE
from tierscale.pipeline.run.tiers import check_options


@click.command()
@shared
def command(**cli_args):
    return to_options(cli_args)


def options(*line):
    return command.main(list(line), standalone_mode=False)


def test_every_policy_has_one_name_that_is_shown():
    assert sorted(map(core_policy, POLICIES)) == sorted(CORE)
    context = click.Context(command)
    text = command.get_help(context)
    assert all(name in text for name in POLICIES)
    assert not [name for name in (*OLD_POLICIES, "--lose", "dearest", "cheapest") if name in text]


@pytest.mark.parametrize(("old", "new"), OLD_POLICIES.items())
def test_old_names_of_policies_are_the_new_ones(old, new):
    limits = ("--max-loss", "0.1") if new == "max-loss" else ()
    assert options("--policy", old, *limits) == options("--policy", new, *limits)
    assert PolicyType().convert(old, None, None) == new


def test_lose_is_max_loss():
    found = options("--lose", "0.1")
    assert found == options("--max-loss", "0.1") and found.lose == 0.1
    assert found.policy == core_policy("max-loss")


def test_limits_alone_imply_their_policies():
    for option, value in (("budget", "0.5"), ("deadline", "90m"), ("threshold", "0.1")):
        assert options(f"--{option}", value).policy == option
    assert options("--deadline", "1h30m").deadline == 5400


def test_an_unknown_policy_is_told_the_new_names():
    with pytest.raises(click.UsageError, match="'max-loss', 'adaptive'"):
        options("--policy", "luck")


def test_commands_without_an_option_have_its_default():
    assert to_options({}) == options()


@pytest.mark.parametrize("text", ["5", "1,2,3", "a,b"])
def test_a_range_that_is_not_two_numbers_is_refused(text):
    with pytest.raises(Refused, match=f"the range '{text}' is not two numbers"):
        options("--range", text)
    with pytest.raises(Refused, match=f"the region '{text}' is not four numbers"):
        options("--region", text)


def test_plan_accepts_options_that_mean_nothing_there_and_shows_none(capsys, image, tmp_path):
    output = tmp_path / "out.zarr"
    line = ("plan", image, output, *FAST)
    plain = tierscale(capsys, *line)
    assert plain[0] == 0
    more = tierscale(capsys, *line, "--overwrite", "--keep-source")
    assert more[0] == 0 and more[1].splitlines()[0] == plain[1].splitlines()[0]
    text = tierscale(capsys, "plan", "--help")[1]
    assert "--overwrite" not in text and "--keep-source" not in text and "--curve" in text


def test_a_plan_beside_an_output_of_another_plan_says_so(capsys, image, tmp_path):
    output = tmp_path / "out.zarr"
    assert tierscale(capsys, "upscale", image, output, *FAST)[0] == 0
    same = tierscale(capsys, "plan", image, output, *FAST)
    assert same[0] == 0 and "--overwrite" not in same[1]
    for more in ((), ("--overwrite",)):
        other = tierscale(capsys, "plan", image, output, *FAST, "--tile", "16", *more)
        assert other[0] == 0 and "upscale needs --overwrite" in other[1], other[2]
    refused = tierscale(capsys, "upscale", image, output, *FAST, "--tile", "16")
    check_refusal(refused, 2, "another plan", "--overwrite")


def test_a_policy_that_needs_a_scout_is_checked_by_its_core_name():
    check_options(options("--max-loss", "0.1", "--tiers", "bicubic,fsrcnn-x4"))
