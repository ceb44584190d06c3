"""The luma that imgtx computes with, where no paper's protocol asks for another."""

# Weights of red, green and blue by BT.601; a neutral grey keeps its value.
LUMA = (0.299, 0.587, 0.114)
