"""Networks: how they are built, executed, trained, and found by name (`registry`).

Nothing here knows image files of a run, plans or clusters: torch, numpy, safetensors and Pillow are
enough. The way in is `from tierscale.models import registry`.
"""
