"""A trained segmenter on new images: ``gcdis predict``, ``gcdis bundle``, ``gcdis_ray.load``."""
