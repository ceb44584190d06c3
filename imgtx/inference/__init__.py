"""From an image through tiles and the model to an image: the one path of library, pipeline and validation."""
