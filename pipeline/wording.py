"""Numbers in sentences for people: how many of what, and how many bytes."""

UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def counted(number: int, noun: str) -> str:
    """A number of things: "1 shard", "2 shards"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def in_bytes(number: float) -> str:
    """An amount of bytes with three digits, in the unit that leaves 1 to 1023 of it: "2.06 MiB"."""
    if number < 1024:
        return counted(round(number), "byte")
    for unit in UNITS:
        number /= 1024
        if round(number) < 1024 or unit == UNITS[-1]:
            break
    decimals = 2 if number < 9.995 else 1 if number < 99.95 else 0
    return f"{number:.{decimals}f} {unit}"


def compared(needed: float, allowed: float) -> tuple[str, str]:
    """Two different amounts of bytes, in_bytes() or else so exactly that they do not read alike."""
    texts = in_bytes(needed), in_bytes(allowed)
    return texts if texts[0] != texts[1] else (f"{needed:.0f} bytes", f"{allowed:.0f} bytes")
