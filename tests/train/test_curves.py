"""Curves: each report is a point of each panel; held-out cells are points where asked."""

from cytolake.train.curves import training_curves

REPORTS = [
    {"step": step, "loss": 9.0 - step, "accuracy": 0.1 * step, "tokens_per_s": 100.0}
    for step in range(4)
]


def test_each_quantity_has_a_panel_with_a_point_a_report() -> None:
    figure = training_curves(REPORTS)
    assert len(figure.axes) == 3
    (line,) = figure.axes[0].lines
    assert list(line.get_xdata()) == [0, 1, 2, 3]
    assert list(line.get_ydata()) == [9.0, 8.0, 7.0, 6.0]


def test_held_out_cells_stand_beside_the_training_where_they_were_asked() -> None:
    more = {"learning_rate": 1e-3, "gradient_norm": 2.0}
    reports = [report | more for report in REPORTS]
    reports[2] |= {"validation_loss": 7.5, "validation_accuracy": 0.05}
    figure = training_curves(reports)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[3:] == ["learning rate", "gradient norm before clipping"]
    for axis, value in zip(figure.axes[:2], (7.5, 0.05), strict=True):
        _, held_out = axis.lines
        assert (list(held_out.get_xdata()), list(held_out.get_ydata())) == ([2], [value])
    assert all(len(axis.lines) == 1 for axis in figure.axes[2:])


def test_a_run_without_a_report_gives_a_figure_without_a_panel() -> None:
    assert training_curves([]).axes == []
