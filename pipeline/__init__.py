"""One image on one machine: geometry, images, store, scoring, routing, stitching, plan, receipts,
report. Never imports ray.
"""
