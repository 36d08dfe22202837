"""The only place with workers and control flow: inspect, draft, scan, plan, run, verify.

`pipeline.run.run.upscale_image` takes one image from its source to its closed output.
"""
