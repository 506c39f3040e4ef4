"""Instances as ImageJ's regions of interest (ROIs) and back, to the pixel.

A pixel of row r and column c is the square from (c, r) to (c + 1, r + 1) in ImageJ's coordinates (x, y), and belongs to
a region that holds its centre. An outline along the edges of pixels is therefore exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from roifile import ROI_SUBTYPE, ROI_TYPE, ImagejRoi
from scipy import ndimage
from skimage.draw import polygon
from skimage.measure import find_contours

_OUTLINED = (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED)
_MOVE, _LINE, _CLOSE = 0, 1, 4  # the segments of a composite ROI's path, as in java.awt.geom.PathIterator


def rois_from_instances(instances: np.ndarray, *, page: int | None = None) -> list[ImagejRoi]:
    """Outline every instance along the edges of its pixels.

    An instance in one piece without holes becomes a traced polygon, every other one a composite ROI. Both give exactly
    the instance's pixels in ImageJ and by `instances_from_rois`.

    Args:
        instances: integers (H, W), 0 = background.
        page: the page of a stack that they belong to, counted from 0; None = no stack.

    Returns:
        One ROI for each instance in the order of their ids, named by its id ("0007"; of a page by both, counted from 1
        as in ImageJ: "0001-0007").

    Raises:
        ValueError: if `instances` does not have two axes.

    Example:
        >>> roi, = rois_from_instances(np.array([[0, 7, 7], [0, 0, 7]]))
        >>> roi.name, roi.coordinates().tolist()
        ('0007', [[2, 2], [2, 1], [1, 1], [1, 0], [3, 0], [3, 2]])
    """
    if instances.ndim != 2:
        raise ValueError(f"instances must have two axes, (H, W), got shape {instances.shape}.")
    rois = []
    for i, box in enumerate(ndimage.find_objects(instances), start=1):
        if box is None:
            continue
        corner = (box[1].start, box[0].start)
        outlines = [outline + corner for outline in _outlines(instances[box] == i)]
        roi = ImagejRoi.frompoints(outlines[0]) if len(outlines) == 1 else _composite(outlines)
        if len(outlines) == 1:
            roi.roitype = ROI_TYPE.TRACED
        roi.left, roi.right, roi.top, roi.bottom = box[1].start, box[1].stop, box[0].start, box[0].stop
        roi.name = f"{i:04d}" if page is None else f"{page + 1:04d}-{i:04d}"
        roi.position = 0 if page is None else page + 1
        rois.append(roi)
    return rois


def _outlines(mask: np.ndarray) -> list[np.ndarray]:
    """Return the closed outlines of a mask as corners (x, y): one of each 4-connected component and of each hole.

    Every point of a contour at level 1/2 is the middle of an edge between a pixel inside and one outside. Where an
    upright edge follows a level one or the other way round, they meet in a corner: of the row of the level edge and the
    column of the upright one.
    """
    corners = []
    for contour in find_contours(np.pad(mask, 1).astype(float), 0.5, fully_connected="low"):
        here, following = contour[:-1], contour[1:]
        here_level, following_level = here[:, 0] % 1 > 0, following[:, 0] % 1 > 0
        rows = np.where(here_level, here[:, 0], following[:, 0])
        columns = np.where(here_level, following[:, 1], here[:, 1])
        # The padding shifts by 1, and the corner of a pixel lies 1/2 before its centre.
        corners.append((np.stack([columns, rows], axis=1)[here_level != following_level] - 0.5).astype(np.int32))
    return corners


def _composite(outlines: list[np.ndarray]) -> ImagejRoi:
    path: list[float] = []
    for outline in outlines:
        for kind, (x, y) in zip([_MOVE, *[_LINE] * (len(outline) - 1)], outline.tolist(), strict=True):
            path += [kind, x, y]
        path.append(_CLOSE)
    roi = ImagejRoi(roitype=ROI_TYPE.RECT, shape_roi_size=len(path))
    roi.multi_coordinates = np.array(path, dtype=np.float32)
    return roi


def instances_from_rois(rois: Sequence[ImagejRoi], shape: tuple[int, int]) -> np.ndarray:
    """Rasterise regions: a pixel belongs to the region that holds its centre, where regions overlap to the last one.

    Args:
        rois: areas: polygon, freehand, traced, rectangle, oval and composite ROIs. Parts outside the image are cut off.
        shape: (H, W) of the image.

    Returns:
        int32 (H, W): 0 = background, 1, 2, ... = the regions in their order.

    Raises:
        ValueError: for a ROI that is no area, such as a line or a point.

    Example:
        >>> square = ImagejRoi(roitype=ROI_TYPE.RECT, left=1, top=0, right=3, bottom=2)
        >>> instances_from_rois([square], (3, 4))
        array([[0, 1, 1, 0],
               [0, 1, 1, 0],
               [0, 0, 0, 0]], dtype=int32)
    """
    instances = np.zeros(shape, dtype=np.int32)
    for i, roi in enumerate(rois, start=1):
        outlines = _area_outlines(roi)
        low = np.clip(np.floor(np.min([o.min(axis=0) for o in outlines], axis=0)), 0, shape[::-1]).astype(int)
        high = np.clip(np.ceil(np.max([o.max(axis=0) for o in outlines], axis=0)), low, shape[::-1]).astype(int)
        inside = np.zeros((high - low)[::-1], dtype=bool)
        for outline in outlines:
            x, y = (outline - low - 0.5).T
            inside[polygon(y, x, inside.shape)] ^= True  # what an even number of outlines encloses is a hole
        instances[low[1] : high[1], low[0] : high[0]][inside] = i
    return instances


def _area_outlines(roi: ImagejRoi) -> list[np.ndarray]:
    """Return the outlines of an area as points (x, y)."""
    left, top, right, bottom = map(float, (roi.left, roi.top, roi.right, roi.bottom))
    if roi.subpixelrect:
        left, top, right, bottom = roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
    if roi.subtype in (ROI_SUBTYPE.UNDEFINED, ROI_SUBTYPE.ELLIPSE, ROI_SUBTYPE.ROTATED_RECT):
        if roi.roitype in _OUTLINED or roi.composite:
            outlines = [np.asarray(points, dtype=float) for points in roi.coordinates(multi=True) if len(points)]
            if outlines:
                return outlines
        elif roi.roitype == ROI_TYPE.RECT:
            return [np.array([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=float)]
        elif roi.roitype == ROI_TYPE.OVAL:
            angle = np.linspace(0, 2 * np.pi, 360, endpoint=False)
            circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
            return [np.array([left + right, top + bottom]) / 2 + circle * [(right - left) / 2, (bottom - top) / 2]]
    raise ValueError(f"rois must be areas such as polygons, got {roi.roitype.name} ({roi.subtype.name}) {roi.name!r}.")
