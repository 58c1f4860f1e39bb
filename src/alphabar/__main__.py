"""`python -m alphabar`: the command line."""

import alphabar.cli  # noqa: F401, it registers the commands
from alphabar.frame import main

if __name__ == "__main__":
    main()
