"""Trainings that are killed, interrupted and watched, to see that nothing is lost."""
