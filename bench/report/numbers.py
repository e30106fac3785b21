"""Figures as people read them."""

from __future__ import annotations

from bench.figures import Figure

DASH = "\N{EN DASH}"
THREE_DIGITS = 100
TWO_DIGITS = 10


def show_number(value: float) -> str:
    """Three digits that count: 0.62, 4.5, 13.2, 130, 13,021."""
    if abs(value) >= THREE_DIGITS:
        return f"{value:,.0f}"
    if abs(value) >= TWO_DIGITS:
        return f"{value:.1f}"
    return f"{value:.2f}"


def show_figure(figure: Figure | None) -> str:
    """The median, and the range where there is one."""
    if figure is None:
        return DASH
    if figure.count == 1:
        return show_number(figure.median)
    low, high = show_number(figure.low), show_number(figure.high)
    return f"{show_number(figure.median)} ({low}{DASH}{high})"


def show_share(share: float) -> str:
    """A part of a whole."""
    return f"{share * 100:.0f} %"
