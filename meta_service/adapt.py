"""A meta-learned theta, adapted to a task of one's own."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import Tensor

from meta_service import examples
from meta_service.episode import Batch
from meta_service.errors import UserError
from meta_service.job import JobSpec
from meta_service.learner import loss_of
from meta_service.params import Params


class MetaModel:
    """A meta-learned theta, not adapted to any task yet."""

    def __init__(self, job: JobSpec, params: Params) -> None:
        self.job, self.params = job, params

    @property
    def default_steps(self) -> int:
        """Gradient steps of adaptation: those the job's first result is stated for."""
        return self.job.evaluations[0].headline_step

    def adapt(
        self, support_x: Any, support_y: Any, steps: int | None = None, inner_lr: float | None = None
    ) -> "AdaptedModel":
        """theta' after `steps` gradient steps on the examples, with the loss and step size of the run.

        Images: see `examples.inputs`; labels may be anything hashable, one an example, all classes of the model.
        Regression: x [n] or [n, features], y [n] or [n, outputs]. Raises UserError.
        """
        job, signature = self.job, self.job.tasks.signature
        x = examples.inputs(support_x, signature, "support_x")
        labels, flat = None, False
        if job.tasks.metric_name == "accuracy":
            labels = examples.labels(support_y, len(x), signature.outputs)
            y, shots = labels.indices, max(1, round(len(x) / signature.outputs))
        else:
            y, shots = examples.values(support_y, len(x), signature.outputs), len(x)
            flat = np.ndim(support_y) == 1
        # the loss may be divided by the number of shots: then alpha keeps its meaning for any number of them
        tasks: Any = dataclasses.replace(job.data_sets, shots=shots)  # type: ignore[type-var]
        algorithm = job.maml if inner_lr is None else dataclasses.replace(job.maml, inner_lr=inner_lr)
        steps = self.default_steps if steps is None else steps
        if steps < 0:
            raise UserError(f"steps: at least 0 is expected, {steps} came")
        params = algorithm.adapt(loss_of(job, tasks), self.params, (Batch((x,), y),) * steps)
        context = None if getattr(tasks, "transductive", True) else x
        as_list = isinstance(support_y, list | tuple)
        return AdaptedModel(job, params, context, labels, as_list, flat)


class AdaptedModel:
    """f_theta', for one task."""

    def __init__(
        self,
        job: JobSpec,
        params: Params,
        context: Tensor | None,
        labels: examples.Labels | None,
        as_list: bool,
        flat: bool,
    ) -> None:
        self.job, self.params = job, params
        self._context, self._labels, self._as_list, self._flat = context, labels, as_list, flat

    @property
    def classes(self) -> list[Any]:
        """The labels, in the order of `predict_proba`'s columns."""
        if self._labels is None:
            raise UserError("classes: a classification run is expected, this one is regression; it has none")
        return list(self._labels.classes)

    def predict(self, query_x: Any) -> Any:
        """The label of each example, of the kind that was given; or its value, float32 [n] or [n, outputs].

        Where the run is transductive, batch normalisation takes the statistics of all of `query_x`: give it together.
        """
        outputs = self._outputs(query_x)
        if self._labels is None:
            return outputs[:, 0].numpy() if self._flat else outputs.numpy()
        found = [self._labels.classes[index] for index in outputs.argmax(1).tolist()]
        return found if self._as_list else np.array(found)

    def predict_proba(self, query_x: Any) -> np.ndarray:
        """The probability of each class: float32 [n, ways], columns as in `classes`."""
        if self._labels is None:
            raise UserError("predict_proba: a classification run is expected, this one is regression; use predict")
        return self._outputs(query_x).softmax(1).numpy()

    @torch.no_grad()
    def _outputs(self, query_x: Any) -> Tensor:
        x = examples.inputs(query_x, self.job.tasks.signature, "query_x")
        return self.job.model.apply(self.params, x, self._context)
