"""Other people's models behind the contract of our own; `imgtx.models.references` is the door to them.

A file here is one library or format. It turns files into an `AdaptedModel`: `info`, `digest`, `prepare`, and a call from
a batch to a batch. docs/development/add-an-adapter.md says how to write another.
"""
