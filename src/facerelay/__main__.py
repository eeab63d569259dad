"""`python -m facerelay` is `facerelay`."""

from facerelay.cli import main

if __name__ == "__main__":
    main()
