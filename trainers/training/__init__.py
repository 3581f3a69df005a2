"""The training of one model, teacher, student and control alike."""
