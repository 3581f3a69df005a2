"""What a model is worth: metrics, test sets, calibration, intervals."""
