"""Parts of the study `calibration` that try verdicts where the truth is known."""
