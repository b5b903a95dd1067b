"""What MLflow runs to serve a meta-learned model: a request brings a task's support examples and its queries."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from meta_service.adapt import MetaModel
from meta_service.dotted import from_json

JOB, PARAMS = "job.json", "params.safetensors"


class FewShotModel:
    """Adapts theta to `support_x`, `support_y` and predicts for `query_x`; keeps nothing between two requests."""

    def __init__(self, model: MetaModel) -> None:
        self.model = model

    def predict(self, model_input: Mapping[str, np.ndarray], params: Mapping[str, Any] | None = None) -> np.ndarray:
        """The label or value of each query example; `params`: steps and inner_lr of the adaptation."""
        adapted = self.model.adapt(model_input["support_x"], model_input["support_y"], **(params or {}))
        predicted: np.ndarray = adapted.predict(model_input["query_x"])
        return predicted


def _load_pyfunc(data_path: str) -> FewShotModel:
    """MLflow asks for this by name; the folder is the one `serving` logged."""
    job = from_json((Path(data_path) / JOB).read_text())
    return FewShotModel(MetaModel(job, load_file(Path(data_path) / PARAMS)))
