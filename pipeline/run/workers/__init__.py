"""Who does the work: the worker, the tasks that it is given, and the pools that hold workers.

No decision about an image is made here; `pipeline.run` makes them and submits tasks.
"""
