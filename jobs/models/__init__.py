"""The model store's commands: list, show, import, promote, probe."""
