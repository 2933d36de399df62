"""The worker's tests run torch in this process, on one thread, so that they neither wait for each other nor differ."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
