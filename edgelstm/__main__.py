"""`python -m edgelstm`."""

from edgelstm.cli import main

if __name__ == "__main__":
    main()
