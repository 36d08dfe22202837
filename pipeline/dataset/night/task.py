"""What is to become of an archive, on whatever night."""

import json
from dataclasses import dataclass, field

from tierscale.pipeline.dataset.night.settling import Settling
from tierscale.pipeline.dataset.output_paths import OutputPaths
from tierscale.pipeline.plan.options import Options
from tierscale.pipeline.plan.policies import OLD_NAMES, parameter_of
from tierscale.pipeline.storage.paths import normalize_root

# Policies whose number version 0.1 wrote down, or None, whichever policy was chosen -> its name.
FIRST_NUMBERS = {
    "budget": "budget",
    "threshold": "threshold",
    "max-loss": "lose",
    "deadline": "deadline",
}


@dataclass(frozen=True, slots=True)
class ArchiveTask:
    """What is to become of an archive. Folders and URIs are kept as of normalize_root.

    archive: the tree of sources; output: where their enlarged images go, in a tree of the same
    shape. options: how every image is enlarged. max_memory: bytes. overwrite: enlarge again what
    was enlarged with other options. source_roots: where links in the archive may lead beside it.
    settling: how long sources must have been left alone.
    """

    archive: str
    output: str
    options: Options = field(default_factory=Options)
    max_memory: int | None = None
    overwrite: bool = False
    source_roots: tuple[str, ...] = ()
    settling: Settling = field(default_factory=Settling)

    def __post_init__(self) -> None:
        object.__setattr__(self, "archive", normalize_root(self.archive))
        object.__setattr__(self, "output", normalize_root(self.output))
        object.__setattr__(self, "source_roots", tuple(map(normalize_root, self.source_roots)))

    @property
    def options_text(self) -> str:
        """The options as the ledger keeps them: equal texts ask for equal outputs."""
        return ledger_text(self.options)

    def is_redone(self, options_text: str | None) -> bool:
        """Whether what was done with some options, as the ledger keeps them, is done again."""
        return self.overwrite and asks_otherwise(options_text, self.options)

    def output_paths(self) -> OutputPaths:
        """Where the images go."""
        return OutputPaths(self.archive, self.output)


def ledger_text(options: Options) -> str:
    """Options as text that stays the same from version to version: names of 0.1 are kept.

    A ledger of an earlier version then finds its images done with the same options.
    """
    policy = options.policy
    old_names = {new: old for old, new in OLD_NAMES.items()}
    numbers: dict[str, float | None] = dict.fromkeys(FIRST_NUMBERS.values())
    number = parameter_of(policy)
    if number is not None:
        numbers[FIRST_NUMBERS.get(policy.name, policy.name)] = number
    wanted = {
        **numbers,
        "scale": str(options.scale),
        "tiers": options.tiers,
        "policy": old_names.get(policy.name, policy.name),
        "pooled": False,
        "tile": options.tile,
        "blend": options.blend,
        "device": options.device,
        "value_range": options.value_range,
        "region": options.region,
        "series": options.series,
        "level": options.level,
        "z": options.z,
        "t": options.t,
        "nodata": options.nodata,
        "exact_statistics": options.exact_statistics,
        "scout": None,
    }
    if options.family != "auto":  # version 0.1 knew none
        wanted["family"] = options.family
    if options.denoise != 1:
        wanted["denoise"] = options.denoise
    return json.dumps(wanted, sort_keys=True, default=str)


def asks_otherwise(text: str | None, options: Options) -> bool:
    """Whether options ask for something else than the text of those that an image was done with.

    What nobody wrote does not count: a version with other defaults redoes nothing.
    """
    if text is None:
        return True
    before, now = json.loads(text), json.loads(ledger_text(options))
    names = set(options.written)
    if "policy" in names:
        names |= set(FIRST_NUMBERS.values())
    return any(before.get(name) != now.get(name) for name in names)
