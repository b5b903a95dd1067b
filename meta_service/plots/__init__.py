"""A run's results as pictures (PNG), each beside the matplotlib figure it is drawn from."""

from meta_service.plots.adaptation import adaptation_figure, adaptation_picture
from meta_service.plots.episode import episode_figure, episode_picture
from meta_service.plots.policies import paths_figure, policy_pictures, robot_figure
from meta_service.plots.sinusoid import sinusoid_figure, sinusoid_picture
from meta_service.plots.style import png
from meta_service.plots.training import training_figure, training_picture

__all__ = [
    "adaptation_figure",
    "adaptation_picture",
    "episode_figure",
    "episode_picture",
    "paths_figure",
    "png",
    "policy_pictures",
    "robot_figure",
    "sinusoid_figure",
    "sinusoid_picture",
    "training_figure",
    "training_picture",
]
