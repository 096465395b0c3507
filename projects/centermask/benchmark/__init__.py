"""How fast models are, measured side by side: time, stages, counts and shares of the machine's peak."""
