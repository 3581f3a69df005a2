"""``python -m plstore`` is the command ``plstore``."""

from plstore.cli.main import main

main()
