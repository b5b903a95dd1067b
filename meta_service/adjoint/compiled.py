"""A function of tensors, traced once for each set of shapes and compiled by torch.compile."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_leaves

_LOG = logging.getLogger(__name__)
Shapes = tuple[tuple[torch.Size, torch.dtype, torch.device], ...]


class Compiled:
    """Gives what `function` gives, up to rounding; where compiling fails, says so in one line and calls `function`.

    Trees of tensors go in and come out; what happens in between may depend on shapes only. Compiling takes half a
    minute, a third of it where this user has compiled the same before.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._for: dict[Shapes, Callable[..., Any]] = {}
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meta_service" / "inductor"
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache))  # kept: the default is emptied with /tmp

    def __call__(self, *arguments: Any) -> Any:
        leaves: list[Tensor] = tree_leaves(arguments)
        shapes = tuple((leaf.shape, leaf.dtype, leaf.device) for leaf in leaves)
        with torch.no_grad():
            if shapes in self._for:
                return self._for[shapes](*arguments)
            try:
                self._for[shapes] = torch.compile(make_fx(self.function)(*arguments), fullgraph=True, dynamic=False)
                return self._for[shapes](*arguments)
            except Exception as error:  # of whatever kind: the compiler is missing, was killed, or ran out of memory
                _LOG.warning("not compiled, more slowly but with the same result: %s", _first_line(error))
                self._for[shapes] = self.function
                return self.function(*arguments)


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
