"""The processor of this machine: what rounding depends on, and whether it has bfloat16."""

import contextlib
import os
import platform
from functools import cache
from pathlib import Path

import torch

from tierscale.pipeline.plan.precision import Hardware, Precision

CPUINFO = Path("/proc/cpuinfo")
# What may be written in the variable by which oneDNN is told not to use all that the processor has.
LIMIT = "ONEDNN_MAX_CPU_ISA"
WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")
WITHOUT_AMX = ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512")


def hardware_here(device: str) -> Hardware:
    """What a worker in this process computes on, on a kind of device."""
    if device != "cpu" or not torch.backends.mkldnn.is_available():
        return Hardware(device)
    return Hardware(device, bfloat16_of(_cpuinfo(), os.environ.get(LIMIT, "")))


def bfloat16_of(cpuinfo: str, limit: str = "") -> Precision | None:
    """The bfloat16 that oneDNN uses on a processor, by what the kernel says of it.

    The kernel names what it lets processes use; AMX, where it is, goes before AVX-512. limit: value
    of LIMIT.
    """
    if limit.upper() in WITHOUT_BFLOAT16:
        return None
    lines = cpuinfo.splitlines()
    flags = next((line.split(":")[-1].split() for line in lines if line.startswith("flags")), [])
    if limit.upper() not in WITHOUT_AMX and {"amx_tile", "amx_bf16"} <= set(flags):
        return "amx_bf16"
    return "avx512_bf16" if "avx512_bf16" in flags else None


@cache
def name_of(device: str) -> str:
    """What rounding depends on: the processor's name, its vector instructions, and torch."""
    if device == "cuda" and torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    lines, name = _cpuinfo().splitlines(), platform.machine()
    name = next((line.split(": ")[-1] for line in lines if line.startswith("model name")), name)
    return f"{name} {torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}"


@cache
def _cpuinfo() -> str:
    """What the kernel says of the processors; empty where it says nothing."""
    with contextlib.suppress(OSError):  # there is none but on Linux
        return CPUINFO.read_text()
    return ""
