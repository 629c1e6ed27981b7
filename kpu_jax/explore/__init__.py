"""Search: the best mapping of an operation, the best chips of a space."""
