"""Networks: how they are built, run, trained, and found by name (`registry`).

Nothing here knows files of images, plans or clusters.
"""
