"""tierscale enlarges very large images and whole archives of them."""
