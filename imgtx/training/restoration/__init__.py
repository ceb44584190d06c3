"""Training networks from images to images: restoration, enlargement, filling holes."""
