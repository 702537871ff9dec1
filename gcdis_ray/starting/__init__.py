"""``gcdis init``: from a folder of images to the config that fits it."""
