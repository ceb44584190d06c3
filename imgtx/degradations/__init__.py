"""From clean to damaged pictures: one file a kind."""
