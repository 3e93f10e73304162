"""`python -m sparseattn` is the command `sparseattn`."""

from sparseattn.cli.main import main

main()
