"""Teachers label a store's images."""
