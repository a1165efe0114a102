"""The life of a run: what a configuration means, the loop, its checkpoints, its errors."""
