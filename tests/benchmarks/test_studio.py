"""What the benchmark of the studio says of its rounds."""

from __future__ import annotations

from benchmarks.studio import Wait, result


def test_medians_and_bounds() -> None:
    said = result([Wait(9.0, 0.4, 2.0, 11.0), Wait(8.0, 0.6, 3.0, 12.0), Wait(10.0, 0.5, 4.0, 9.0)])
    assert "9.00 (8.00-10.00)" in said and "3.00 (2.00-4.00)" in said
    assert "PASS  first paint, from opening the page: 0.50 (at most 1)" in said
    assert "FAIL  the first picture is there: 11.00 (at most 10)" in said
