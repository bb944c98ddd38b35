"""Distilled sets on disk: the folder that ddbench writes, sets that others released, the card of an exported set."""
