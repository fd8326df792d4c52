"""How an image processor of Hugging Face resizes, crops and pads, in the fields of Preprocess."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import msgspec

from vitedge.core.spec import Positive, Rate, Spread
from vitedge.models.preprocessing import Triple, cannot_express
from vitedge.models.sources.image_processors import Processor


class Size(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Pixels: both sides, the shortest edge, that with a limit on the longest, or a box to fit."""

    height: Positive | None = None
    width: Positive | None = None
    shortest_edge: Positive | None = None
    longest_edge: Positive | None = None
    max_height: Positive | None = None
    max_width: Positive | None = None

    def __str__(self) -> str:
        return str({key: value for key, value in msgspec.structs.asdict(self).items() if value})


# lists, not pairs: msgspec 0.22 crashes in a union of a bounded number and a tuple
_Sides = Positive | list[Positive] | Size


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """A `preprocessor_config.json`; the defaults are those most image processors share."""

    size: _Sides | None = None
    default_to_square: bool = True
    """Whether a `size` of one number means both sides, or the shortest edge."""
    max_size: Positive | None = None
    """Of the longest edge, where `size` is a number (old files of detectors)."""
    crop_size: _Sides | None = None
    crop_pct: Spread | None = None
    resample: int = 3
    do_resize: bool = True
    do_center_crop: bool = False
    do_rescale: bool = True
    rescale_factor: Annotated[float, msgspec.Meta(gt=0)] = 1 / 255
    rescale_offset: bool = False
    do_normalize: bool = True
    include_top: bool = False
    image_mean: Triple = (0.5, 0.5, 0.5)
    image_std: Triple = (0.5, 0.5, 0.5)
    do_flip_channel_order: bool = False
    do_pad: bool = False
    pad_size: _Sides | None = None
    size_divisor: Positive | None = None
    keep_aspect_ratio: bool = False
    ensure_multiple_of: Rate = 1
    resize_short: Positive | None = None
    do_split_image: bool = False
    do_grayscale: bool = False
    do_thumbnail: bool = True
    do_align_long_axis: bool = False
    do_affine_transform: bool = True


_Fields = dict[str, Any]
_MUST_BE = {
    **{"do_split_image": False, "do_grayscale": False, "do_align_long_axis": False},
    **{"do_thumbnail": True, "do_affine_transform": True},
}
"""What there is no other way for."""


class Geometry:
    """The fields of Preprocess that say how to resize, crop and pad."""

    def __init__(self, processor: Processor, settings: Settings, source: str) -> None:
        self.processor, self.settings, self.source = processor, settings, source
        square = settings.default_to_square
        self.size = _size(settings.size, square, settings.max_size)
        if processor.geometry == "donut" and isinstance(settings.size, list):  # width first, once
            self.size = Size(height=self.size.width, width=self.size.height)
        self.crop = _size(settings.crop_size) if settings.do_center_crop else None
        self.nominal = processor.nominal
        """Height and width for a model that does not say its own, where images differ in size."""

    def fields(self) -> _Fields:
        """Without height and width where the images that it makes differ in size: see `nominal`.

        Raises InputError, naming the key, for what Preprocess has no equal for.
        """
        for key, value in _MUST_BE.items():
            if getattr(self.settings, key) != value:
                self._refuse(key)
        crop = self.crop
        if crop and not (crop.height and crop.width):
            self._refuse("crop_size")
        if crop and self._pad_size() not in (None, crop):
            self._refuse("pad_size")
        if self.processor.geometry == "own" or not self.settings.do_resize:
            if self.processor.geometry not in ("own", "multiple", "person"):
                self._refuse("do_resize")
            if self.processor.geometry != "person":
                return self._squashed(self._sides() if self.settings.size else None)
        rules: dict[str, Callable[[], _Fields]] = {
            **{"size": self._by_size, "convnext": self._convnext, "levit": self._levit},
            **{"poolformer": self._poolformer, "perceiver": self._perceiver},
            **{"multiple": self._multiple, "inside": self._inside, "donut": self._donut},
            **{"square": self._square, "mirror": self._mirror, "person": self._person},
            **{
                "yolos": self._yolos,
                "line": self._line,
                "pplcnet": self._pplcnet,
                "textnet": self._textnet,
            },
        }
        return rules[self.processor.geometry]()

    def _refuse(self, key: str) -> NoReturn:
        raise cannot_express(self.source, key, getattr(self.settings, key))

    def _squashed(self, nominal: tuple[int, int] | None) -> _Fields:
        self.nominal = nominal or self.nominal
        return {"resize": "exact"}

    def _sides(self) -> tuple[int, int]:
        if not (self.size.height and self.size.width):
            self._refuse("size")
        return self.size.height, self.size.width

    def _filled(self, **more: Any) -> _Fields:
        """Both sides, as they are said."""
        height, width = self._sides()
        return {"height": height, "width": width, "resize": "exact", **more}

    def _by_size(self) -> _Fields:
        """Both sides, an edge or a box; then a crop, or what is missing padded."""
        size = self.size
        if size.height and size.width:
            divisor = self.settings.size_divisor or 1
            sides = [math.ceil(side / divisor) * divisor for side in (size.height, size.width)]
            return self._exact(sides[0], sides[1])
        if size.max_height and size.max_width:
            return self._within(size.max_height, size.max_width, "down")
        if size.shortest_edge:
            return self._shorter(size.shortest_edge, size.longest_edge or 0)
        if size.longest_edge:
            return self._within(size.longest_edge, size.longest_edge, "nearest")
        self._refuse("size")

    def _exact(self, height: int, width: int) -> _Fields:
        target = self.crop or self._pad_size() or self.size
        if target in (self.size, Size(height=height, width=width)):
            return {"height": height, "width": width, "resize": "exact"}
        if height != width:
            self._refuse("size")
        small = max(target.height or 0, target.width or 0) > height
        return {**_input(target), "resize": "exact", "resize_px": height, **self._margin(small)}

    def _shorter(self, side: int, limit: int = 0, rounding: str = "down") -> _Fields:
        target = self.crop or self._pad_size()
        if target is None:
            return self._squashed((side, side))
        fits = 0 < limit <= min(target.height or 0, target.width or 0)
        if not self.crop and (self.settings.size_divisor or not fits):
            self._refuse("pad_size")
        small = bool(limit) or max(target.height or 0, target.width or 0) > side
        resized = {"resize": "shorter_side", "resize_px": side, "resize_limit_px": limit}
        return {**_input(target), **resized, "resize_rounding": rounding, **self._margin(small)}

    def _within(self, height: int, width: int, rounding: str) -> _Fields:
        target = self.crop or self._pad_size()
        if target is None:
            return self._squashed((height, width))
        box = Size(height=height, width=width)
        if target != box and height != width:
            self._refuse("size")
        resized = {"resize": "inside", "resize_px": 0 if target == box else height}
        return {**_input(target), **resized, "resize_rounding": rounding, **self._margin(True)}

    def _pad_size(self) -> Size | None:
        """What it pads to, whatever the image."""
        if not self.settings.do_pad:
            return None
        if self.settings.pad_size is None and self.processor.pads_black:  # as EoMT
            side = self.size.shortest_edge
            return (side and Size(height=side, width=self.size.longest_edge or side)) or None
        return _size(self.settings.pad_size) if self.settings.pad_size else None

    def _margin(self, small: bool) -> _Fields:
        """How what is missing is padded: a crop's black and around, else to the right and below."""
        if not small:
            return {}
        if self.crop:
            return {"pad": "center"}
        black = self.processor.pads_black or not self.settings.do_normalize
        mean = (0.0,) * 3 if black else self.settings.image_mean
        scale = self.settings.rescale_factor if self.settings.do_rescale else 1
        return {"pad": "end", "pad_color": [round(level / scale) for level in mean]}

    def _convnext(self) -> _Fields:
        """The size is that of its input: large ones are squashed, small ones have a margin."""
        side = self.size.shortest_edge
        if self.crop:
            self._refuse("do_center_crop")
        if not side:
            self._refuse("size")
        if side >= 384:
            return {"height": side, "width": side, "resize": "exact"}
        self.crop = Size(height=side, width=side)
        if not self.settings.crop_pct:
            self._refuse("crop_pct")
        return self._shorter(int(side / self.settings.crop_pct))

    def _levit(self) -> _Fields:
        side = self.size.shortest_edge
        return self._shorter(int(256 / 224 * side)) if side else self._by_size()

    def _poolformer(self) -> _Fields:
        if not self.settings.crop_pct:
            return self._by_size()
        side = self.size.shortest_edge or self.size.height
        if not side or (self.size.width or side) != side:
            self._refuse("size")
        return self._shorter(int(side / self.settings.crop_pct))

    def _yolos(self) -> _Fields:
        """DETR's, in multiples of 16 below that."""
        if self.size.shortest_edge and self._pad_size():
            self._refuse("pad_size")
        return self._by_size()

    def _perceiver(self) -> _Fields:
        height, width = self._sides()
        if self.crop is None:
            return self._filled()
        share = height / (self.crop.height or height)
        if share > 1 or height != width or self.crop.height != self.crop.width:
            self._refuse("crop_size")
        return self._filled(crop_share=share)

    def _multiple(self) -> _Fields:
        """DPT's: both sides, or as little as possible; multiples of a patch."""
        step = self.settings.ensure_multiple_of
        height, width = (int(round(side / step) * step) for side in self._sides())
        divisor = self.settings.size_divisor if self.settings.do_pad else None
        if divisor and (height % divisor or width % divisor):
            self._refuse("size_divisor")
        if self.settings.keep_aspect_ratio:
            return self._squashed((height, width))
        return {"height": height, "width": width, "resize": "exact"}

    def _mirror(self) -> _Fields:
        pad = {"pad": "mirror"} if self.settings.do_pad else {}
        return {**self._multiple(), **pad}

    def _inside(self) -> _Fields:
        """Squashed, or as large as fits and padded around (Sapiens) or at its end (SLANeXt)."""
        if not self.processor.pads_black:
            side = max(self._sides())
            return self._within(side, side, "nearest")
        if self.crop:
            self._refuse("do_center_crop")
        inside = {"resize": "inside", "pad": "center"}
        return self._filled() | (inside if self.settings.do_pad else {})

    def _square(self) -> _Fields:
        return self._filled(pad="square" if self.settings.do_pad else "none")

    def _donut(self) -> _Fields:
        if self.crop:
            self._refuse("do_center_crop")
        if not self.settings.do_pad:
            self._refuse("do_pad")
        resized = {"resize": "shorter_then_inside", "resize_px": min(self._sides())}
        return self._filled(pad="center") | resized

    def _person(self) -> _Fields:
        return self._filled() | {"resize": "box"}

    def _line(self) -> _Fields:
        """As wide as a line of text is, which an input is not: longer ones become lower."""
        target = self._pad_size()
        if target != self.size:
            self._refuse("pad_size")
        return self._within(*self._sides(), "up")

    def _pplcnet(self) -> _Fields:
        if self.settings.size_divisor not in (None, 1):
            self._refuse("size_divisor")
        side = self.settings.resize_short
        return self._shorter(side, rounding="nearest") if side else self._by_size()

    def _textnet(self) -> _Fields:
        side, divisor = self.size.shortest_edge, self.settings.size_divisor or 1
        if not side or self.crop:
            self._refuse("do_center_crop" if side else "size")
        nominal = math.ceil(side / divisor) * divisor
        return self._squashed((nominal, nominal))


def _input(target: Size) -> _Fields:
    return {"height": target.height, "width": target.width}


def _size(size: _Sides | None, square: bool = True, longest: int | None = None) -> Size:
    if isinstance(size, int):
        edge = Size(shortest_edge=size, longest_edge=longest)
        return Size(height=size, width=size) if square else edge
    return size if isinstance(size, Size) else Size(*(size or [])[:2])
