"""The pipeline on arrays, in this process: numpy, dask or zarr in and out, no Ray, the same bytes.

How an image is planned and enlarged is decided in `pipeline.run` alone; here is what arrays need
beside it: where their pixels come from, where results go, and how much memory they may take.
"""

from tierscale.pipeline.run.array.upscale import upscale_array
from tierscale.pipeline.run.array.work import EnlargedArray, enlarge_array

__all__ = ["EnlargedArray", "enlarge_array", "upscale_array"]
