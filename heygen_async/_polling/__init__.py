"""The machinery under `polling`: the board decides, carriers ask, and those who wait are told."""
