"""Configuration of random views. No torch: `plan` reads this."""

from __future__ import annotations

from pydantic import Field

from gcdis_ray.config import Closed


class CropAugmentConfig(Closed):
    """One random view of a crop. Geometry moves image and mask alike."""

    min_area: float = Field(0.3, gt=0, le=1, description="smallest share of the crop shown")
    max_aspect: float = Field(1.33, ge=1, le=4, description="largest stretch of a side")
    min_mask: float = Field(0.25, ge=0, le=1, description="share of the mask that must stay")
    flip: bool = Field(True, description="horizontal; turn off where handedness is meaning")
    rotation_deg: float = Field(0.0, ge=0, le=180)
    shear: float = Field(0.0, ge=0, le=1, description="largest slant, as a tangent")
    elastic: float = Field(0.0, ge=0, le=0.5, description="smooth warp, share of the side")
    jitter: float = Field(0.8, ge=0, le=1, description="probability of colour jitter")
    brightness: float = Field(0.4, ge=0, le=1)
    contrast: float = Field(0.4, ge=0, le=1)
    saturation: float = Field(0.4, ge=0, le=1)
    hue: float = Field(0.1, ge=0, le=0.5, description="turns of the colour circle")
    invert: float = Field(0.0, ge=0, le=1, description="probability of a negative")
    grey: float = Field(0.2, ge=0, le=1, description="probability")
    blur: float = Field(0.5, ge=0, le=1, description="probability")
    blur_max_px: float = Field(1.0, gt=0, le=8, description="largest standard deviation")
    noise: float = Field(0.0, ge=0, le=1, description="largest standard deviation, of range 0..1")
    erase: float = Field(0.0, ge=0, le=1, description="probability of a grey rectangle")
    mask_wobble: float = Field(
        0.0, ge=0, le=1, description="probability that the input mask is grown or shrunk a little"
    )
    background: float = Field(
        0.0, ge=0, le=1, description="probability of another crop's pixels outside the mask"
    )
