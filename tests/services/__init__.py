"""How tests start the real parts."""
