"""Adaptive methods: networks that compute less where a picture needs less, one folder a method.

Each folder holds the paper's network (`network.py`, trainable), what executes it sparsely, and its
`upscaler.py`; training and upstream checkpoints live in models/train and models/convert.
"""
