"""The review page: see, correct, merge and fine-tune in the browser, served to this machine alone."""

from nimbus_sd._review.handle import Review as Review
from nimbus_sd._review.handle import review as review

__all__ = ["review"]
