"""The images of a training: decoded, packed in one file, reduced, and cut into crops."""
