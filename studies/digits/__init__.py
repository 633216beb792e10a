"""Parts of the digits study."""
