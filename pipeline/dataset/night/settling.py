"""Sources that are still being written, such as copies on their way, wait for the next look."""

from dataclasses import dataclass

from tierscale.pipeline.dataset.scan import ListedSource, look

# Seconds between the two looks at a source, where no shorter time is asked for: what is being
# copied has another size by then.
BETWEEN_LOOKS = 5.0


@dataclass(frozen=True, slots=True)
class Settling:
    """How long a source must have been left alone before it is enlarged.

    seconds: 0 stands for not at all; nothing is looked at then.
    """

    seconds: float = 0.0

    @property
    def pause(self) -> float:
        """Seconds between the listing and the second look."""
        return min(self.seconds, BETWEEN_LOOKS)

    def waits(self, listed: ListedSource, now: float) -> bool:
        """Whether a source was changed a moment ago. now: seconds since the epoch.

        A time in the future says nothing, and never waits.
        """
        return 0 <= now - listed.changed < self.seconds

    def moves(self, listed: ListedSource, root: str, now: float) -> bool:
        """Whether a second look at a source below `root` shows that it is still being written."""
        if not self.seconds:
            return False
        again = look(listed.source, root)
        if again is None:
            return False
        same = (again.bytes, again.mtime_ns, again.etag) == (
            listed.bytes,
            listed.mtime_ns,
            listed.etag,
        )
        return not same or self.waits(again, now)
