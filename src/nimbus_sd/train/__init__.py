"""Training on streams of tiles. Needs the extra ``nimbus-sd[train]``."""
