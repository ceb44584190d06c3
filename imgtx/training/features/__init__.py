"""Feature networks that losses and evaluations of style transfer look through; built once in the user's cache."""
