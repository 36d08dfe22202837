"""AdaDSR (arXiv 2004.03915): each place gets as many residual blocks as it needs.

`network` is what is trained, `upscaler` what the pipeline calls; nothing of another method is here.
"""
