"""What ddbench registers of its own; light, imports no torch."""

BACKBONES = []
