"""Balance: symmetries of a loss, their charges, and how SGD changes them."""
