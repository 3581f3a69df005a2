"""What a model says of images outside of any store."""
