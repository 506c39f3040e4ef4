import numpy as np
import pytest
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi, roiread, roiwrite
from skimage.segmentation import relabel_sequential
from unet_monai.data.imagej_rois import instances_from_rois, rois_from_instances

from tests.drawings import draw, random_discs
from tests.reference.inside import fill


def through_bytes(rois):
    return [ImagejRoi.frombytes(roi.tobytes()) for roi in rois]


@pytest.mark.parametrize(
    "picture",
    [
        "1",
        "122\n122\n333",
        ".1.\n111\n.1.",
        "1112\n1.12\n1112\n2222",  # a hole, and an instance that surrounds another
        "1.1\n...\n1.1",  # several pieces
        "1.\n.1",  # pieces that touch at a corner
        ".1.\n1.1\n.1.",
        "11111\n1...1\n1.1.1\n1...1\n11111",  # an island in a hole
        "111.\n1.1.\n11..\n....",  # a hole that touches the background at a corner
        "....\n....",
    ],
)
def test_drawn_round_trips(picture):
    instances = draw(picture)
    rois = through_bytes(rois_from_instances(instances))
    assert instances_from_rois(rois, instances.shape).tolist() == instances.tolist()


@pytest.mark.parametrize("seed", range(6))
def test_random_round_trips_through_a_file(tmp_path, seed):
    random = np.random.default_rng(seed)
    instances = random_discs(seed, (37, 58), count=20, radius=(2, 9))  # at the edges and touching
    instances[random.random(instances.shape) < (0, 0.02, 0.3)[seed % 3]] = 0  # holes and crumbs
    instances[5, 7] = 99
    instances = relabel_sequential(instances)[0]
    assert (np.bincount(instances.ravel()) == 1).any(), "test invalid"
    roiwrite(tmp_path / "a.zip", rois_from_instances(instances))
    np.testing.assert_array_equal(instances_from_rois(roiread(tmp_path / "a.zip"), instances.shape), instances)


@pytest.mark.parametrize("seed", range(4))
def test_outlines_hold_the_centres_of_exactly_their_pixels(seed):
    noise = np.random.default_rng(seed).random((9, 13)) < 0.6
    for roi in rois_from_instances(noise.astype(int)):
        outlines = roi.coordinates(multi=True)
        np.testing.assert_array_equal(fill(outlines, noise.shape), noise)
        corners = np.concatenate(outlines)
        assert (corners == np.rint(corners)).all()


@pytest.mark.parametrize("seed", range(4))
def test_filling_agrees_with_the_slow_reference(seed):
    points = np.random.default_rng(seed).uniform(-4, 14, size=(7, 2)).astype(np.float32)
    filled = instances_from_rois([ImagejRoi.frompoints(points)], (9, 12))
    np.testing.assert_array_equal(filled > 0, fill([points], (9, 12)))


def test_kinds_and_names():
    rois = rois_from_instances(draw("1133\n1.33\n1133\n5.5."))
    assert [(roi.name, roi.roitype.name, roi.composite) for roi in rois] == [
        ("0001", "TRACED", False),
        ("0003", "TRACED", False),
        ("0005", "RECT", True),
    ]
    assert [(roi.left, roi.right, roi.top, roi.bottom) for roi in rois] == [(0, 2, 0, 3), (2, 4, 0, 3), (0, 3, 3, 4)]
    assert {roi.position for roi in rois} == {0}
    (roi,) = rois_from_instances(draw("7.\n.7"))
    assert len(roi.coordinates(multi=True)) == 2  # pieces that touch at a corner only are two
    (roi,) = rois_from_instances(draw("7"), page=2)
    assert (roi.name, roi.position) == ("0003-0007", 3)


def test_gaps_between_ids_close():
    assert instances_from_rois(rois_from_instances(draw("9.4")), (1, 3)).tolist() == [[2, 0, 1]]


def test_shapes_of_other_origin():
    rectangle = ImagejRoi(roitype=ROI_TYPE.RECT, left=-2, top=1, right=2, bottom=9)
    assert instances_from_rois([rectangle], (3, 3)).tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 0]]
    fine = ImagejRoi(
        version=229,
        roitype=ROI_TYPE.RECT,
        options=ROI_OPTIONS.SUB_PIXEL_RESOLUTION,
        xd=0.6,
        yd=0.4,
        widthd=2,
        heightd=1.0,
    )
    assert instances_from_rois([fine], (2, 3)).tolist() == [[0, 1, 1], [0, 0, 0]]
    oval = ImagejRoi(roitype=ROI_TYPE.OVAL, left=0, top=0, right=4, bottom=3)
    assert instances_from_rois([oval], (3, 5)).tolist() == draw(".11..\n1111.\n.11..").tolist()


def test_the_last_of_overlapping_regions_wins_and_those_outside_leave_nothing():
    def square(corner, side):
        return ImagejRoi(roitype=ROI_TYPE.RECT, left=corner, top=corner, right=corner + side, bottom=corner + side)

    instances = instances_from_rois([square(0, 2), square(50, 3), square(-9, 3), square(1, 2)], (3, 4))
    assert instances.tolist() == draw("11..\n144.\n.44.").tolist()


@pytest.mark.parametrize(
    ("roi", "kind"),
    [
        (ImagejRoi(roitype=ROI_TYPE.LINE, name="way"), "LINE"),
        (ImagejRoi(roitype=ROI_TYPE.POINT), "POINT"),
        (ImagejRoi(roitype=ROI_TYPE.RECT, subtype=ROI_SUBTYPE.TEXT), "RECT .TEXT"),
        (ImagejRoi(roitype=ROI_TYPE.POLYGON), "POLYGON"),  # without points
    ],
)
def test_only_areas_are_instances(roi, kind):
    with pytest.raises(ValueError, match=f"rois must be areas such as polygons, got {kind}"):
        instances_from_rois([roi], (3, 3))


def test_volumes_are_refused():
    with pytest.raises(ValueError, match=r"instances must have two axes, \(H, W\), got shape \(2, 2, 2\)"):
        rois_from_instances(np.ones((2, 2, 2), int))
