"""``python -m gcdis_ray.cli``."""

from gcdis_ray.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
