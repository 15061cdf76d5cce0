"""`python -m dps_local` is `dps-local`."""

from dps_local.cli import main

if __name__ == "__main__":
    main()
