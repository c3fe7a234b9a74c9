"""Curves: every report is a point of every panel."""

from cytolake.train.curves import training_curves


def test_each_quantity_has_a_panel_with_a_point_a_report() -> None:
    reports = [
        {"step": step, "loss": 9.0 - step, "accuracy": 0.1 * step, "tokens_per_s": 100.0}
        for step in range(4)
    ]
    figure = training_curves(reports)
    assert len(figure.axes) == 3
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(line.get_ydata()) == [9.0, 8.0, 7.0, 6.0]
