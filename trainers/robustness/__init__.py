"""How a model holds under corruption, perturbation and attack: images, figures, no store.

`published` and `metrics` need numpy alone, `corruptions` and `perturbations` the extra
"robustness", `attacks` torch and that extra. Each is imported by its own name, so that a
process that corrupts images does not load torch.
"""
