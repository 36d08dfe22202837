"""What a processor has, by what the kernel says of it."""

import pytest

from tierscale.pipeline.plan.precision import Hardware
from tierscale.pipeline.run.workers import processor

AMX = "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_tile amx_bf16 amx_int8\n"
AVX512 = "flags\t\t: fpu avx512f avx512_bf16\nflags\t\t: fpu\n"


@pytest.mark.parametrize(
    ("cpuinfo", "limit", "kind"),
    [
        (AMX, "", "amx_bf16"),
        (AMX, "default", "amx_bf16"),
        (AMX, "AVX512_CORE_AMX", "amx_bf16"),
        (AMX, "AVX512_CORE_BF16", "avx512_bf16"),
        (AMX, "avx512_core", None),
        (AVX512, "", "avx512_bf16"),
        (AVX512, "AVX2", None),
        ("flags\t\t: fpu avx2 amx_bf16\n", "", None),
        ("flags\t\t: fpu avx512f\n", "", None),
        ("Features\t: fp asimd bf16\n", "", None),
        ("", "", None),
    ],
)
def test_the_kind_is_that_which_the_kernel_and_the_limit_leave(cpuinfo, limit, kind):
    assert processor.bfloat16_of(cpuinfo, limit) == kind


def test_a_gpu_has_none(monkeypatch):
    monkeypatch.delenv(processor.LIMIT)
    monkeypatch.setattr(processor, "_cpuinfo", lambda: AMX)
    assert processor.hardware_here("cpu") == Hardware("cpu", "amx_bf16")
    assert processor.hardware_here("cuda") == Hardware("cuda")


def test_results_name_processor_and_torch():
    assert "torch" in processor.name_of("cpu")
