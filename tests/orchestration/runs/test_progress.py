"""What a run tells on the way, where there is no terminal for a bar."""

import logging

from mama_ray.orchestration.runs.progress import Progress


def test_a_validation_is_told_in_a_line(caplog):
    caplog.set_level(logging.INFO, "mama_ray")
    progress = Progress("mine", num_steps=100, first_step=0, show_bar=False)
    progress.tell_validation(40, {"val/t2v_R@1": 12.5, "val/v2t_R@1": 6.25, "val/t2v_median_rank": 4.0})
    progress.tell_validation(60, {"val/caption_loss": 1.23456, "val/colour_right": 75.0})
    progress.tell_validation(80, {})
    assert [record.getMessage() for record in caplog.records] == [
        "mine: validated at step 40: t2v_R@1 12.5 %, v2t_R@1 6.25 %, t2v_median_rank 4",
        "mine: validated at step 60: caption_loss 1.235, colour_right 75 %",
    ]
