"""Third-party models behind the contract of imgtx's own: one file a library or format, listed in ADAPTERS.

`imgtx.models.references` asks them in this order. To add one: a file with what `base.Adapter` names, and its line here
(docs/development/add-an-adapter.md).
"""

from imgtx.models.adapters import diffusers, spandrel, torchscript, transformers
from imgtx.models.adapters.base import Adapter

ADAPTERS: tuple[Adapter, ...] = (spandrel, diffusers, transformers, torchscript)
