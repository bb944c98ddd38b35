"""ddbench: dataset distillation methods, measured under one protocol."""

__version__ = "0.1.0"
