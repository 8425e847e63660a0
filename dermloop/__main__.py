"""`python -m dermloop` is the `dermloop` command."""

from dermloop.cli import main

if __name__ == "__main__":
    main()
