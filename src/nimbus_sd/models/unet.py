"""The network: a residual U-Net of tensors to tensors.

The state dict has the layout of the published Nimbus model, so that its weights load by name.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

Padding = Literal["reflect", "zeros"]

IN_CHANNELS = 2
MAX_DEPTH, MAX_PATCH = 8, 8
#: What a network and its card must agree on.
ARCHITECTURE = ("root_filters", "depth", "patch", "padding")


def check_architecture(root_filters: object, depth: object, padding: object, patch: object) -> None:
    """Raise a ValueError if there is no :class:`UNet` of these parameters."""
    limits = {"root_filters": (root_filters, 1, 2**16), "depth": (depth, 2, MAX_DEPTH), "patch": (patch, 1, MAX_PATCH)}
    for name, (value, low, high) in limits.items():
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"{name} is {value!r}; it must be a whole number from {low} to {high}.")
    if padding not in get_args(Padding):
        raise ValueError(f"padding is {padding!r}; it must be one of {', '.join(get_args(Padding))}.")


class Block(nn.Module):
    """Two 3x3 convolutions around which the input passes through a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, padding: Padding) -> None:
        super().__init__()
        self.conv2d_0 = nn.Conv2d(in_channels, out_channels, 1)
        self.conv2d_1 = nn.Conv2d(out_channels, out_channels, 3, padding=1, padding_mode=padding)
        self.bn_1 = nn.BatchNorm2d(out_channels)
        self.conv2d_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, padding_mode=padding)
        self.bn_2 = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        skip: Tensor = self.conv2d_0(x)
        x = torch.relu_(self.bn_1(self.conv2d_1(skip)))
        x = torch.relu_(self.bn_2(self.conv2d_2(x)))
        return x + skip


class Upsample(nn.Module):
    """A transposed 2x2 convolution that doubles height and width and halves the number of channels."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.upconv = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, in_channels / 2, 2 H, 2 W)."""
        up: Tensor = self.upconv(x)
        return up


class UNet(nn.Module):
    """Residual U-Net of the Nimbus paper (Rumberger et al., Methods, "Nimbus architecture").

    Parameters
    ----------
    root_filters
        Channels of the first level. They double with each level. The published model has 64.
    depth
        Number of levels, i.e. of poolings + 1, from 2 to 8. The published model has 5.
    padding
        ``"reflect"`` (as published) or ``"zeros"``, before each 3x3 convolution.
    patch
        Side of the squares of pixels that the first level takes as one, from 1 to 8: with 2, an image takes about a
        quarter of the work. The published model has 1.

    Examples
    --------
    >>> import torch
    >>> network = UNet(root_filters=4, depth=3).eval()
    >>> network(torch.zeros(1, 2, 16, 24)).shape
    torch.Size([1, 1, 16, 24])
    """

    def __init__(self, root_filters: int = 16, depth: int = 5, padding: Padding = "reflect", patch: int = 1) -> None:
        super().__init__()
        check_architecture(root_filters, depth, padding, patch)
        self.root_filters, self.depth, self.patch = root_filters, depth, patch
        self.padding: Padding = padding

        widths = [root_filters * 2**level for level in range(depth)]
        self.contracting_layers = nn.ModuleList()
        for before, width in zip([IN_CHANNELS * patch**2, *widths], widths[:-1], strict=False):
            self.contracting_layers.extend([Block(before, width, padding), nn.MaxPool2d(2)])
        self.expanding_layers = nn.ModuleList()
        for width in reversed(widths[:-1]):
            self.expanding_layers.extend([Upsample(2 * width), nn.ReLU(), Block(2 * width, width, padding)])
        self.bottle_neck = Block(widths[-2], widths[-1], padding)
        self.final_conv = nn.Conv2d(root_filters, patch**2, 1)

    @property
    def stride(self) -> int:
        """Height and width of an input are multiples of this many pixels, the patch doubled by each pooling."""
        return self.patch << (self.depth - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits of an image and the interior of its cells.

        Parameters
        ----------
        x
            (B, 2, H, W), float: the normalised image in [0, 1], then the cell interior as 0 and 1.
            H and W are multiples of :attr:`stride` and at least two strides.

        Returns
        -------
        (B, 1, H, W) logits. Their sigmoid is the confidence.
        """
        stride = self.stride
        if x.ndim != 4 or x.shape[1] != IN_CHANNELS or any(n % stride or n < 2 * stride for n in x.shape[2:]):
            wanted = f"(B, 2, H, W) with H and W multiples of {stride} and at least {2 * stride}"
            raise ValueError(f"The network was given shape {tuple(x.shape)}; it takes {wanted}. Pad the image first.")
        skips = []
        x = pixel_unshuffle(x, self.patch)
        for layer in self.contracting_layers:
            x = layer(x)
            if isinstance(layer, Block):
                skips.append(x)
        x = self.bottle_neck(x)
        for layer in self.expanding_layers:
            if isinstance(layer, Block):
                x = torch.cat([skips.pop(), x], dim=1)
            x = layer(x)
        return pixel_shuffle(self.final_conv(x), self.patch)
