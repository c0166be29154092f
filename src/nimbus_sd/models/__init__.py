"""The network, the zoo of weights with their cards, and scoring of arrays."""

from nimbus_sd.models.card import PUBLISHED as PUBLISHED
from nimbus_sd.models.card import Card
from nimbus_sd.models.hub import push
from nimbus_sd.models.scorer import Scorer
from nimbus_sd.models.scorer import turn as turn
from nimbus_sd.models.unet import Padding as Padding
from nimbus_sd.models.unet import UNet
from nimbus_sd.models.zoo import Model, load, save
from nimbus_sd.models.zoo import read_archive as read_archive

__all__ = ["Card", "Model", "Scorer", "UNet", "load", "push", "save"]
