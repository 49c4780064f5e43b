"""`python -m conjure`."""

from conjure.cli.main import main

if __name__ == "__main__":
    main()
