"""What a pool reports to Prometheus, through the endpoint that every Ray node has.

No tag names a tile, a shard or an image: the number of time series stays small.
"""

import time
from collections.abc import Callable, Mapping

from ray.util.metrics import Counter, Gauge, Histogram

from tierscale.pipeline.output.receipt import Receipt

# Bounds of the histogram's buckets, in seconds.
BOUNDS = [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]


class Meter:
    """Counters over the life of one pool.

    device: what its workers compute on. clock: monotonic, seconds.
    """

    def __init__(self, device: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.device, self.clock = device, clock
        self.tiles = Counter("tierscale_tiles", "Tiles enlarged, by tier.", tag_keys=("tier",))
        self.bytes = Counter("tierscale_bytes", "Bytes of shards written, as stored.")
        self.shards = Counter(
            "tierscale_shards",
            "Shards written, by level: 0 is the image, others are its pyramid.",
            tag_keys=("level",),
        )
        self.seconds = Histogram(
            "tierscale_shard_seconds",
            "Seconds of one shard, by stage.",
            BOUNDS,
            tag_keys=("stage",),
        )
        self.queue = Gauge(
            "tierscale_queue_depth",
            "Calls that wait for a worker, by kind of worker.",
            tag_keys=("kind",),
        )
        self.workers = Gauge(
            "tierscale_workers", "Workers that are up, by kind.", tag_keys=("kind",)
        )
        self.busy = Gauge(
            "tierscale_busy_share",
            "Share of the workers' time in which networks ran, 0..1.",
            tag_keys=("device",),
        )
        self._enlarging, self._reported = 0.0, clock()

    def completed(self, result: object) -> None:
        """Count what the receipt of a completed call says; other results do not count."""
        if not isinstance(result, Receipt):
            return
        for tier, count in result.tiles.items():
            if count:  # Ray's counters refuse an increase of 0
                self.tiles.inc(count, {"tier": tier})
        if result.bytes:
            self.bytes.inc(result.bytes)
        self.shards.inc(1, {"level": str(result.level)})
        for stage, seconds in result.seconds.items():
            self.seconds.observe(seconds, {"stage": stage})
        self._enlarging += result.seconds.get("enlarge", 0.0)

    def report(self, waiting: Mapping[str, int], up: Mapping[str, int]) -> None:
        """Set the gauges. waiting: calls by kind of worker; up: workers by kind."""
        for kind in waiting:
            self.queue.set(waiting[kind], {"kind": kind})
            self.workers.set(up[kind], {"kind": kind})
        now = self.clock()
        worker_seconds = (now - self._reported) * sum(up.values())
        if worker_seconds > 0:
            self.busy.set(min(1.0, self._enlarging / worker_seconds), {"device": self.device})
        self._enlarging, self._reported = 0.0, now
