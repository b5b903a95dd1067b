"""Reinforcement learning: trajectories and their mathematics (pure), and the simulations they come from."""
