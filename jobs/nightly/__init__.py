"""The nightly loop: choose new images, fine-tune, gate, promote, upscale."""
