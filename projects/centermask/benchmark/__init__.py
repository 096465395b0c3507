"""Timing of models side by side: latency, stages, operator counts, training steps; and the figures of the metafile."""
