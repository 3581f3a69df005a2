"""Networks: what they are, where their weights come from, what they cost."""
