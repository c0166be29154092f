"""The network, the zoo of weights with their cards, and scoring of arrays."""

from nimbus_sd.models.archive import read_archive as read_archive
from nimbus_sd.models.card import PUBLISHED, Card
from nimbus_sd.models.hub import push
from nimbus_sd.models.inference import Scorer
from nimbus_sd.models.unet import Padding as Padding
from nimbus_sd.models.unet import UNet, architecture
from nimbus_sd.models.views import View as View
from nimbus_sd.models.zoo import Model, load, save

__all__ = ["PUBLISHED", "Card", "Model", "Scorer", "UNet", "architecture", "load", "push", "save"]
