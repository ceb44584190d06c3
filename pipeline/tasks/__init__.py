"""One file a task: everything a run needs to know of its kind of work."""
