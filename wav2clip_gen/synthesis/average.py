"""The moving average of codes that is shown."""

from __future__ import annotations

from torch import Tensor


class UnbiasedEma:
    """An exponential moving average without start-up bias (Kingma & Ba, arXiv 1412.6980, section 3)."""

    def __init__(self, half_life: float) -> None:
        self.decay = 2 ** (-1 / half_life) if half_life else 0.0  # per value
        self.total: Tensor | None = None
        self.weight = 0.0

    def update(self, value: Tensor) -> Tensor:
        """Add a value and return the average so far."""
        self.weight = self.decay * self.weight + 1 - self.decay
        update = (1 - self.decay) * value
        self.total = update if self.total is None else self.decay * self.total + update
        return self.value

    @property
    def value(self) -> Tensor:
        """The average of the values so far, at least one."""
        assert self.total is not None
        return self.total / self.weight

    def replace(self, value: Tensor) -> None:
        """Continue from another average, if there is one yet."""
        if self.total is not None:
            self.total = self.weight * value
