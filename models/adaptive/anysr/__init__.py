"""AnySR (arXiv 2407.04241): an encoder of any width and a head of any scale.

`network` is what is trained, `upscaler` what the pipeline calls; nothing of another method is here.
"""
