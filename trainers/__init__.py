"""Programs over the library: teacher, student, labeling, evaluation and the loop."""
