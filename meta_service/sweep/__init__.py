"""Sweeps: which settings of a job are tried, which trial is stopped early, and which is the best."""
