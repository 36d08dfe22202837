"""The pictures of an output: preview, maps of its tiles, and charts with axes.

Each is bounded in size for an image of any shape. Nothing here writes anything but PNG files.
"""
