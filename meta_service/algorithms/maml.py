"""MAML's inner loop and meta-gradient: Finn, Abbeel, Levine (2017), Algorithms 1 and 2."""

from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor
from torch.func import grad, grad_and_value

from meta_service.adjoint.affine import over_tasks
from meta_service.adjoint.network import Data, Network, Pass
from meta_service.episode import Batch, Episode, Loss
from meta_service.errors import UserError
from meta_service.losses import OutputLoss
from meta_service.params import Params, zeros_like


@dataclass(frozen=True)
class MAML:
    """Learns a theta from which `inner_steps` steps of gradient descent on a new task's support set go far."""

    inner_lr: float = 0.01
    """alpha, the step size of adaptation."""
    inner_steps: int = 1
    """Gradient steps on the support set during meta-training; 0 is joint training on all tasks ("pretrained")."""
    first_order: bool = False
    """Take the inner gradients as constants: section 5.2 of the paper, "first order approx."."""
    frozen: tuple[str, ...] = ("norm*",)
    """Parameters (by name, with wildcards) that are meta-learned but not adapted. Default: the batch normalisation's
    shifts, as in the authors' code."""
    recompute: bool = False
    """Compute each inner step anew on the way back instead of keeping its activations: memory that does not grow with
    `inner_steps`, for a third more time in the inner loop."""

    def __post_init__(self) -> None:
        if self.inner_lr <= 0 or self.inner_steps < 0:
            raise UserError(
                "algorithm: inner_lr > 0 and inner_steps >= 0 are expected, "
                f"inner_lr={self.inner_lr} and inner_steps={self.inner_steps} came; correct the override"
            )

    def inner_step(self, loss: Loss, params: Params, batch: Batch) -> Params:
        """theta' = theta - alpha grad L(f_theta, D), equation (1)."""
        gradient = grad(loss)(params, batch)
        if self.first_order:
            gradient = {name: value.detach() for name, value in gradient.items()}
        return self.descend(params, gradient)

    def adapt(self, loss: Loss, params: Params, support: tuple[Batch, ...]) -> Params:
        """theta' after one inner step on each batch of the support set."""
        for batch in support:
            params = self.inner_step(loss, params, batch)
        return params

    def meta_loss(self, params: Params, loss: Loss, episode: Episode) -> Tensor:
        """L(f_theta'_i, D'_i), the summand of equation (2): the query loss after the last inner step; scalar []."""
        return loss(self.adapt(loss, params, episode.support), episode.query)

    def meta_gradient(self, loss: Loss, params: Params, episode: Episode) -> tuple[Params, Tensor]:
        """The gradient of one task's meta-loss with respect to theta, and the meta-loss itself."""
        return grad_and_value(self.meta_loss)(params, loss, episode)

    def block_meta_gradient(
        self, network: Network, loss: OutputLoss, params: Params, support: Data, query: Data
    ) -> tuple[Params, Tensor]:
        """The sum of T tasks' meta-gradients, and their meta-losses [T], by the adjoint of the inner loop.

        lambda_S = grad L(theta_S, D'), then lambda_s = lambda_{s+1} - alpha H(theta_s, D) lambda_{s+1} down to
        lambda_0, the meta-gradient; H is the Hessian of the support loss. Equal to `meta_gradient` up to rounding.
        """
        theta = network.shared(params)
        steps: list[Pass | Params] = []
        for _ in range(self.inner_steps):
            at = network.gradient(loss, theta, support)
            steps.append(theta if self.recompute else at)
            theta = self.descend(theta, at.grads)
        adjoint, losses = network.gradient_in_parts(loss, theta, query)
        while steps and not self.first_order:
            kept = steps.pop()
            at = kept if isinstance(kept, Pass) else network.gradient(loss, kept, support)
            first = not steps  # here theta is the same for all tasks, and only the sum of theirs is asked for
            product = network.hessian_product(loss, at, self._thawed(adjoint), total=first)
            adjoint = {
                name: (over_tasks(value) if first else value) - self.inner_lr * product[name]
                for name, value in adjoint.items()
            }
        return {name: over_tasks(adjoint[name])[0] for name in params}, losses

    def descend(self, params: Params, grads: Params) -> Params:
        """params - alpha grads, where they are not frozen."""
        return {
            name: value if self._is_frozen(name) else value - self.inner_lr * grads[name]
            for name, value in params.items()
        }

    def _thawed(self, params: Params) -> Params:
        """The same with zeros for what is frozen: the part of lambda that goes through an inner step."""
        zero = zeros_like({name: value for name, value in params.items() if self._is_frozen(name)})
        return params | zero

    def _is_frozen(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.frozen)
