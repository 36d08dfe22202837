"""How any network is executed: row streaming, sparse blocks, patches, resampling, counting.

No paper's network lives here; only `plain` and `bicubic` are upscalers.
"""
