"""Tables that a model computes in its first call and keeps for later ones."""
