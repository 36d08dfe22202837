"""Networks of the library spandrel as tiers: every single-file network that it knows.

spandrel is optional (`pip install "tierscale[community]"`) and imported when the first such network
is loaded.
"""

from tierscale.models.convert.community.loading import import_spandrel, is_foreign, load
from tierscale.models.convert.community.upscaler import CommunityUpscaler

__all__ = ["CommunityUpscaler", "import_spandrel", "is_foreign", "load"]
