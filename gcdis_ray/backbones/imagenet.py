"""Statistics of ImageNet's pixels, RGB, that published weights expect.

``255`` is the same for pixels in [0, 255]: what detectors take, which do not scale their images
first.
"""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
IMAGENET_MEAN_255 = tuple(round(255 * value, 3) for value in IMAGENET_MEAN)
IMAGENET_STD_255 = tuple(round(255 * value, 3) for value in IMAGENET_STD)
