"""What every layer stands on: errors with remedies, pytrees, traceable integer arithmetic."""
