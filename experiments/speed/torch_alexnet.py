"""The same two-tower net in PyTorch: what the step is timed against.

Grouped convolutions, LRN over all channels (PyTorch's own, which knows no towers), overlapping
pooling, dropout; fused SGD with momentum and decay. Pixels are augmented on the device as ours are:
one crop and flip for the whole batch, which is less work than ours.
"""

import torch
from torch import nn
from torch.nn import functional


class AlexNet(nn.Module):
    """float [B, 3, 224, 224] to logits [B, num_classes]; sizes 55-27-13-6 as ours."""

    def __init__(self, num_classes: int = 1000):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, 4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6, self.fc7 = nn.Linear(9216, 4096), nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """See the class."""
        x = functional.pad(x, (0, 3, 0, 3))
        for conv in (self.conv1, self.conv2):
            x = functional.relu(conv(x))
            x = functional.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)
            x = functional.max_pool2d(x, 3, 2)
        x = functional.relu(self.conv3(x))
        x = functional.relu(self.conv4(x))
        x = functional.max_pool2d(functional.relu(self.conv5(x)), 3, 2).flatten(1)
        x = functional.dropout(functional.relu(self.fc6(x)), 0.5, self.training)
        x = functional.dropout(functional.relu(self.fc7(x)), 0.5, self.training)
        return self.fc8(x)


class Step:
    """A training step, or an evaluation, of one batch that lies on the device; call it for one.

    Args:
      batch_size: images.
      measure: "train", or what is evaluated: "center" crops or "ten" views.
      device: "cpu" or "cuda".
      precision: "float32", "tensorfloat32" or "bfloat16" (autocast).
      channels_last: layout of the convolutions.
      compile: with `torch.compile`.
    """

    def __init__(
        self,
        batch_size: int,
        measure: str = "train",
        *,
        device: str,
        precision: str = "float32",
        channels_last: bool = True,
        compile: bool = False,
    ):
        torch.manual_seed(0)
        self.precision, self.device, self.measure = precision, device, measure
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.net = AlexNet().to(device, memory_format=self.layout)
        self.net.train(measure == "train")
        self.rule = torch.optim.SGD(self.net.parameters(), 0.01, 0.9, weight_decay=5e-4, fused=True)
        self.images = torch.randint(0, 256, (batch_size, 3, 256, 256), dtype=torch.uint8)
        self.images = self.images.to(device, memory_format=self.layout)
        self.labels = torch.randint(0, 1000, (batch_size,)).to(device)
        work = self._loss if measure == "train" else self._log_probabilities
        self.work = torch.compile(work) if compile else work

    def _logits(self, cut: torch.Tensor) -> torch.Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            x = (cut.float() - 120.0).contiguous(memory_format=self.layout)
            return self.net(x).float()

    def _loss(self, images: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(
            self._logits(images[:, :, 7:231, 9:233].flip(3)), self.labels
        )

    def _log_probabilities(self, images: torch.Tensor) -> torch.Tensor:
        corners = [(16, 16)]
        if self.measure == "ten":
            corners += [(0, 0), (0, 32), (32, 0), (32, 32)]
        crops = [images[:, :, y : y + 224, x : x + 224] for y, x in corners]
        if self.measure == "ten":
            crops += [crop.flip(3) for crop in crops]
        logits = self._logits(torch.cat(crops))
        return functional.softmax(logits, 1).view(len(crops), -1, 1000).mean(0).log()

    def __call__(self) -> torch.Tensor:
        """One update or evaluation; its result, not waited for."""
        exact = self.precision == "float32"
        torch.backends.cuda.matmul.allow_tf32 = not exact
        torch.backends.cudnn.allow_tf32 = not exact
        if self.measure != "train":
            with torch.no_grad():
                return self.work(self.images)
        loss = self.work(self.images)
        loss.backward()
        self.rule.step()
        self.rule.zero_grad(set_to_none=True)
        return loss.detach()

    def wait(self) -> None:
        """Until the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def device_bytes(self) -> int | None:
        """The most memory that tensors took on a GPU; None on CPU."""
        return torch.cuda.max_memory_allocated() if self.device == "cuda" else None
