"""Train, evaluate, optimise, checkpoint, distribute. Knows no task."""
