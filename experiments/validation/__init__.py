"""Outside simulators, reproduced: the same inputs under their rules, by kpu_jax's own executor and formulas."""
