"""Co-design against black-box searches on the same evaluator."""
