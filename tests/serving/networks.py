"""A PyTorch module that is released in tests."""

# PyTorch is there for the long tests only.
# pyright: reportMissingImports=false, reportUntypedBaseClass=false

from typing import Any

import torch


class Net(torch.nn.Module):
    """Two layers, with the probability of class 1 as the answer."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(width, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1))

    def forward(self, matrix: Any) -> Any:
        """Return [n, 1]."""
        return torch.sigmoid(self.layers(matrix))


class Sorts(torch.nn.Module):
    """One layer, with the probability of each of three classes as the answer; or what those are made of."""

    def __init__(self, width: int = 3, *, raw: bool = False) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, 3)
        self.raw = raw

    def forward(self, matrix: Any) -> Any:
        """Return [n, 3]."""
        found = self.layer(matrix)
        return found if self.raw else torch.softmax(found, dim=1)
