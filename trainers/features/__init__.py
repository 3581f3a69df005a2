"""What a frozen network makes of images, kept once, and models that begin there."""
