"""``torchrun … -m benchmark.cli run …``; elsewhere use the installed command ``ddbench``."""

from benchmark.cli import main

main()
