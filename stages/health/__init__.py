"""How it is with the cameras themselves: down, frozen, dark, blinded, moved."""
