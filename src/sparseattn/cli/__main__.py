"""`python -m sparseattn.cli` is the command `sparseattn`."""

from sparseattn.cli.main import main

main()
