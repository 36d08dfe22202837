"""What every network agrees on: the `Upscaler` protocol, effort tables, checkpoint files, metrics.

No network lives here, and nothing here imports another package of models.
"""
