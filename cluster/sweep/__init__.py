"""Sweeps on a Ray cluster: each trial a driver with workers of its own, in its own placement group."""
