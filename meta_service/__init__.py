"""MAML as a distributed training service: what is computed, and where its results go."""
