"""The sweep: Ray Tune and Optuna over training jobs."""
