"""What is told of networks without building them is what they are."""

import subprocess
import sys

from tierscale.models.catalogue import counted, listing


def test_the_catalogue_is_what_is_counted_of_every_network():
    told = "write it anew: python -m tierscale.models.catalogue"
    assert listing() == counted(), told
    assert [row["name"] for row in listing()][:2] == ["bicubic", "adaedsr-x4"]


def test_networks_are_listed_without_torch():
    line = "import sys; import tierscale.models.catalogue as c; c.listing(); print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", line], capture_output=True, text=True, check=True
    )
    assert "tierscale.models.catalogue" in loaded.stdout.split()
    assert "torch" not in loaded.stdout.split()
