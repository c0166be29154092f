"""The network: a residual U-Net of tensors to tensors.

The state dict has the layout of the published Nimbus model, so that its weights load by name.
"""

from collections.abc import Mapping
from itertools import count
from math import isqrt
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

Padding = Literal["reflect", "zeros"]

IN_CHANNELS = 2
MIN_DEPTH, MAX_DEPTH = 2, 8
MAX_PATCH = 8


class Block(nn.Module):
    """Two 3x3 convolutions around which the input passes through a 1x1 convolution.

    Parameters
    ----------
    in_channels, out_channels
        Widths of the input and of the output.
    padding
        How an image is continued by one pixel on each side before a 3x3 convolution.
    """

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
        Side of the squares of pixels that the first level works on as one: 2 gives it four times the image for
        about the same work. The published model has 1.

    Raises
    ------
    ValueError
        If a parameter is outside of what is allowed.

    Examples
    --------
    >>> import torch
    >>> network = UNet(root_filters=4, depth=3).eval()
    >>> network(torch.zeros(1, 2, 16, 24)).shape
    torch.Size([1, 1, 16, 24])
    """

    def __init__(self, root_filters: int = 16, depth: int = 5, padding: Padding = "reflect", patch: int = 1) -> None:
        super().__init__()
        if root_filters < 1:
            raise ValueError(f"root_filters={root_filters}: give a whole number of at least 1.")
        if not MIN_DEPTH <= depth <= MAX_DEPTH:
            raise ValueError(f"depth={depth}: give a whole number from {MIN_DEPTH} to {MAX_DEPTH}.")
        if padding not in ("reflect", "zeros"):
            raise ValueError(f"padding={padding!r}: give 'reflect' or 'zeros'.")
        if not 1 <= patch <= MAX_PATCH:
            raise ValueError(f"patch={patch}: give a whole number from 1 to {MAX_PATCH}.")
        self.root_filters = root_filters
        self.depth = depth
        self.padding: Padding = padding
        self.patch = patch

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

        Raises
        ------
        ValueError
            If ``x`` has another shape.
        """
        stride = self.stride
        if x.ndim != 4 or x.shape[1] != IN_CHANNELS or any(n % stride or n < 2 * stride for n in x.shape[2:]):
            raise ValueError(
                f"The network was given shape {tuple(x.shape)}; it takes (B, 2, H, W) with H and W "
                f"multiples of {stride} and at least {2 * stride}. Pad the image first."
            )
        skips = []
        x = pixel_unshuffle(x, self.patch)
        for block, pool in zip(self.contracting_layers[::2], self.contracting_layers[1::2], strict=True):
            skips.append(block(x))
            x = pool(skips[-1])
        x = self.bottle_neck(x)
        stages = (self.expanding_layers[start::3] for start in range(3))
        for upsample, relu, block in zip(*stages, strict=True):
            x = block(torch.cat([skips.pop(), relu(upsample(x))], dim=1))
        return pixel_shuffle(self.final_conv(x), self.patch)


def architecture(state_dict: Mapping[str, Tensor]) -> tuple[int, int, int]:
    """Read ``(root_filters, depth, patch)`` of a :class:`UNet` off the shapes of its state dict.

    Parameters
    ----------
    state_dict
        Tensors by name, in the published layout.

    Returns
    -------
    root_filters, depth, patch

    Raises
    ------
    ValueError
        If the names or shapes are not those of a :class:`UNet`. The message names some of them.

    Examples
    --------
    >>> architecture(UNet(root_filters=4, depth=3).state_dict())
    (4, 3, 1)
    """
    first = "contracting_layers.0.conv2d_0.weight"
    if first not in state_dict:
        raise ValueError(f"These are not weights of a Nimbus network: {first!r} is missing.")
    if state_dict[first].ndim != 4:
        raise ValueError(f"These are not weights of a Nimbus network: {first!r} is not a 2-D convolution.")
    root_filters = state_dict[first].shape[0]
    patch = isqrt(state_dict[first].shape[1] // IN_CHANNELS)
    if not 1 <= patch <= MAX_PATCH:
        raise ValueError(
            f"These are not weights of a Nimbus network: {first!r} takes {state_dict[first].shape[1]} channels."
        )
    poolings = next(k for k in count() if f"contracting_layers.{2 * k}.conv2d_0.weight" not in state_dict)
    with torch.device("meta"):
        expected = UNet(root_filters, poolings + 1, patch=patch).state_dict()

    built = f"a Nimbus network with {root_filters} root filters and depth {poolings + 1}"
    for problem, keys in (
        ("lack", [key for key in expected if key not in state_dict]),
        ("have the unknown", [key for key in state_dict if key not in expected]),
    ):
        if keys:
            named = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            raise ValueError(f"These look like weights of {built}, but they {problem} {named}.")
    for key, value in expected.items():
        if state_dict[key].shape != value.shape:
            raise ValueError(
                f"These look like weights of {built}, but {key!r} has shape {tuple(state_dict[key].shape)} "
                f"instead of {tuple(value.shape)}."
            )
    return root_filters, poolings + 1, patch
