"""What is known of tiles and policies before an image is enlarged: how tiles are scored, and what
other policies would do with it.
"""
