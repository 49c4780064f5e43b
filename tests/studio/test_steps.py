from __future__ import annotations

import numpy as np

from conjure.media.image import Image
from conjure.studio.steps import Step, Steps, framed, layer, painted


def picture(value: int, height: int = 4, width: int = 6) -> Image:
    return Image(np.full((height, width, 3), value, np.uint8))


def stepped() -> Steps:
    steps = Steps((Step(picture=picture(1), said="Opened"),))
    return steps.went(Step(picture=picture(2), said="Vary")).went(Step(picture=picture(3), said="Vary"))


def test_steps_are_taken_back_and_again() -> None:
    steps = stepped()
    back = steps.moved(-1)
    assert back.now.picture.pixels[0, 0, 0] == 2 and back.moved(1).now.picture.pixels[0, 0, 0] == 3
    assert steps.moved(-5).at == 0 and steps.moved(5).at == 2


def test_what_was_taken_back_is_forgotten_by_another_step() -> None:
    steps = stepped().moved(-2).went(Step(picture=picture(9), said="Other"))
    assert [each.picture.pixels[0, 0, 0] for each in steps.steps] == [1, 9] and steps.at == 1


def test_a_mask_stays_with_the_picture_it_was_painted_on() -> None:
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 255
    steps = Steps((Step(picture=picture(1), said="Opened"),)).went(Step(picture=picture(2), said="Repaint"), mask)
    assert steps.now.mask_HW is None
    kept = steps.moved(-1).now.mask_HW
    assert kept is not None and kept[1, 2] == 255
    assert painted([layer(kept, (9, 9, 9))], (4, 6)) is not None
    assert (painted([layer(kept, (9, 9, 9))], (4, 6)) == mask).all()  # there and back


def test_a_mask_painted_larger_falls_on_the_pixels_under_it() -> None:
    canvas = np.zeros((8, 12, 4), np.uint8)
    canvas[2:4, 4:6, 3] = 200
    mask = painted([canvas], (4, 6))
    assert mask is not None and mask[1, 2] == 255 and mask.sum() == 255
    assert painted([np.zeros((8, 12, 4), np.uint8)], (4, 6)) is None and painted([], (4, 6)) is None


def test_kept_as_new_it_begins_again() -> None:
    alone = stepped().moved(-1).alone()
    assert alone.at == 0 and len(alone.steps) == 1 and alone.now.picture.pixels[0, 0, 0] == 2
    assert alone.pair() is None


def test_before_and_after_are_equally_large() -> None:
    steps = Steps((Step(picture=picture(1), said="Opened"),))
    larger = steps.went(Step(picture=picture(2, 8, 12), said="Enlarge")).pair()
    assert larger is not None and larger[0].shape == larger[1].shape == (8, 12, 4)
    moved = steps.went(Step(picture=picture(2, 6, 9), said="Extend", moved=(3, 2))).pair()
    assert moved is not None and moved[0].shape == (6, 9, 4)
    assert (moved[0][2:, 3:, :3] == 1).all() and (moved[0][:2, :, 3] == 0).all()  # what was not there is transparent


def test_the_frame_shows_what_will_be_new() -> None:
    canvas = framed(picture(1), 2, 1, 3, 0)
    assert canvas.shape == (5, 11, 4) and (canvas[1:, 2:8, :3] == 1).all()
    assert set(np.unique(canvas[0, :, 0])) <= {200, 225}
