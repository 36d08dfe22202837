"""Which precision a plan has, by what was asked for and what workers have."""

import pytest

from tierscale.pipeline.errors import Refused
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.precision import BFLOAT16, Hardware, asks_for, resolve

AMX, AVX512 = Hardware("cpu", "amx_bf16"), Hardware("cpu", "avx512_bf16")
NONE, GPU = Hardware("cpu"), Hardware("cuda")


@pytest.mark.parametrize(
    ("kinds", "shared"),
    [
        (("amx_bf16", "amx_bf16"), "amx_bf16"),
        (("avx512_bf16",), "avx512_bf16"),
        (("amx_bf16", "avx512_bf16"), None),
        (("amx_bf16", None), None),
        ((None, None), None),
        ((), None),
    ],
)
def test_workers_share_a_kind_only_where_all_have_the_same(kinds, shared):
    assert Hardware.shared("cpu", kinds) == Hardware("cpu", shared)


@pytest.mark.parametrize(
    ("asked", "hardware", "able", "precision"),
    [
        ("auto", AMX, True, "amx_bf16"),
        ("auto", AVX512, True, "avx512_bf16"),
        ("auto", NONE, True, "fp32"),
        ("auto", GPU, True, "cuda"),
        ("bf16", AMX, True, "amx_bf16"),
        ("bf16", AMX, False, "fp32"),
        ("auto", AMX, False, "fp32"),
        ("fp32", AMX, True, "fp32"),
        ("fp32", GPU, True, "cuda"),
    ],
)
def test_what_is_asked_for_becomes_what_the_workers_have(asked, hardware, able, precision):
    assert resolve(asked, hardware, able) == precision


@pytest.mark.parametrize(
    ("hardware", "words"), [(NONE, "use --precision fp32"), (GPU, "use --device cpu")]
)
def test_bfloat16_is_refused_where_it_is_not(hardware, words):
    with pytest.raises(Refused, match=words):
        resolve("bf16", hardware, True)


def test_a_stored_plan_will_do_where_it_is_of_what_is_asked_for():
    for precision in (*BFLOAT16, "fp32", "cuda"):
        assert asks_for("auto", precision)
        assert asks_for("bf16", precision) == (precision in BFLOAT16)
        assert asks_for("fp32", precision) == (precision not in BFLOAT16)


def test_workers_go_on_with_their_own_precision_and_with_float32():
    assert AMX.has("amx_bf16") and AMX.has("fp32") and NONE.has("fp32") and GPU.has("cuda")
    assert not (AMX.has("avx512_bf16") or AVX512.has("amx_bf16") or NONE.has("amx_bf16"))
    assert AMX.lacks("cpu", "amx_bf16") is None
    assert "--device cuda" in str(AMX.lacks("cuda", "cuda"))


def test_another_precision_is_refused():
    with pytest.raises(Refused, match="there is no precision 'fp16'; give one of auto, fp32, bf16"):
        Options(precision="fp16")
