"""The same two-tower net in PyTorch: what the step is timed against.

Grouped convolutions, LRN over all channels (PyTorch's own, which knows no towers), overlapping
pooling, dropout; SGD with momentum and decay. Pixels are augmented on the device as ours are: one
crop and flip for the whole batch, which is less work than ours.
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
    """A training step on one batch that lies on the device; call it to make an update.

    Args:
      batch_size: images.
      device: "cpu" or "cuda".
      precision: "float32", "tensorfloat32" or "bfloat16" (autocast).
      channels_last: layout of the convolutions.
      compile: with `torch.compile`.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        device: str,
        precision: str = "float32",
        channels_last: bool = True,
        compile: bool = False,
    ):
        torch.manual_seed(0)
        self.precision, self.device = precision, device
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.net = AlexNet().to(device, memory_format=self.layout)
        self.rule = torch.optim.SGD(
            self.net.parameters(), 0.01, 0.9, weight_decay=5e-4, fused=device == "cuda"
        )
        self.images = torch.randint(0, 256, (batch_size, 3, 256, 256), dtype=torch.uint8)
        self.images = self.images.to(device, memory_format=self.layout)
        self.labels = torch.randint(0, 1000, (batch_size,)).to(device)
        self.loss = torch.compile(self._loss) if compile else self._loss

    def _loss(self, images: torch.Tensor) -> torch.Tensor:
        cut = images[:, :, 7:231, 9:233].flip(3)
        with torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bfloat16"):
            x = (cut.float() - 120.0).contiguous(memory_format=self.layout)
            logits = self.net(x)
        return functional.cross_entropy(logits.float(), self.labels)

    def __call__(self) -> torch.Tensor:
        """One update; the loss, not waited for."""
        exact = self.precision == "float32"
        torch.backends.cuda.matmul.allow_tf32 = not exact
        torch.backends.cudnn.allow_tf32 = not exact
        loss = self.loss(self.images)
        loss.backward()
        self.rule.step()
        self.rule.zero_grad(set_to_none=True)
        return loss.detach()

    def wait(self) -> None:
        """Until the device is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
