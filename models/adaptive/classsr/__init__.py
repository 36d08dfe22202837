"""ClassSR (arXiv 2103.04039): small tiles go through branches from light to heavy.

`network` is what is trained, `upscaler` what the pipeline calls; nothing of another method is here.
"""
