"""PCSR (arXiv 2407.21448): each output pixel is made by a light or a heavy sampler.

`network` is what is trained, `upscaler` what the pipeline calls; nothing of another method is here.
"""
