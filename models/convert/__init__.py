"""Other people's checkpoints: their names and arguments become ours, or spandrel runs them.

`backbones/` and `adaptive/` hold one file for each network of models/backbones and method of
models/adaptive; no network is defined here.
"""
