"""`python -m tierscale`: the same as the command `tierscale`."""

from tierscale.jobs.cli.main import main

if __name__ == "__main__":
    main()
