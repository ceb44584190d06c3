"""Procedural scenes for text-to-image: descriptions, pictures of them, captions, and a program that checks them."""
