"""`python -m tierscale.jobs.demo FOLDER`: enlarge a photograph from scikit-image.

The Hubble deep field suits it: stars that need a large network, on an easy sky.
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image


def main(folder: str) -> None:
    """Enlarge the Hubble deep field four times into `folder`, on an embedded Ray."""
    import skimage.data

    from tierscale.jobs.cli.main import main as tierscale
    from tierscale.jobs.cli.terminal import write

    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    source, output = root / "hubble_deep_field.png", root / "hubble_deep_field_x4.zarr"
    for old in (output, Path(f"{output}.tierscale")):
        shutil.rmtree(old, ignore_errors=True)
    Image.fromarray(np.asarray(skimage.data.hubble_deep_field())).save(source)
    try:
        tierscale(["upscale", str(source), str(output)])
    except SystemExit as ended:
        if ended.code:
            raise
    for name in ("preview.png", "routing.png"):
        shutil.copy(Path(f"{output}.tierscale") / name, root / name)
    write(
        f"see {root / 'preview.png'} and {root / 'routing.png'}; the report is"
        f" {output}.tierscale/report.html"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "demo")
