"""Drawn pictures for training: text, facades, fences, floors, lines, comics, charts and screens."""
