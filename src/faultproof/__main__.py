"""`python -m faultproof`: the command line, where its script is not on the path."""

from faultproof.cli import main

if __name__ == "__main__":
    main()
