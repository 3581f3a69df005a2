"""Clean looks at images: batches, ranges of a store, and what is still missing."""
