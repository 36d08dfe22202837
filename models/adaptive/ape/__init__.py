"""APE (arXiv 2203.11589): patches or cells leave a network at exits.

`network` is what is trained, `upscaler` what the pipeline calls; nothing of another method is here.
"""
