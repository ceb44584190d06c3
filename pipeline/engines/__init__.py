"""Where the images of a run are processed: by Ray, or by processes of this machine without Ray."""
