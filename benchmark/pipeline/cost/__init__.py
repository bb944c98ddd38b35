"""How long things take: the table of measured speeds, its measuring, and what `plan` predicts from it."""
