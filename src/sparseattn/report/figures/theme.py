"""Colours by role, for light and dark pages.

A figure is drawn once with a stand-in colour for each role. In SVG the stand-ins become CSS
variables, which the page (or the file's own style sheet) sets for both readings; in PNG the light
colours are used. The series are an Okabe-Ito palette, darkened or lightened until each has a
contrast of at least 3 to the page.

Source:
    Okabe and Ito, "Color universal design", 2008.
"""

from __future__ import annotations

__all__ = ["DARK", "LIGHT", "ROLES", "SERIES", "STAND_INS", "Palette", "css"]

#: A colour for each role.
Palette = dict[str, str]

LIGHT: Palette = {
    "page": "#ffffff",
    "ink": "#1f2328",
    "quiet": "#59636e",
    "rule": "#d8dee4",
    "band": "#eaeef2",
    "s1": "#0072b2",
    "s2": "#c4500a",
    "s3": "#00795a",
    "s4": "#a8408a",
    "s5": "#946b00",
    "s6": "#2b87b8",
    "s7": "#6a4fb3",
    "s8": "#b3303f",
}

DARK: Palette = {
    "page": "#14181d",
    "ink": "#e6eaef",
    "quiet": "#9da7b3",
    "rule": "#353c45",
    "band": "#232a32",
    "s1": "#58b4ec",
    "s2": "#f2894f",
    "s3": "#35c79b",
    "s4": "#e58fcb",
    "s5": "#dfb045",
    "s6": "#a3d7f7",
    "s7": "#ab98f0",
    "s8": "#f38592",
}

ROLES = tuple(LIGHT)

#: Roles that tell series apart, in the order of their use.
SERIES = tuple(role for role in ROLES if role.startswith("s") and role[1:].isdigit())

#: Colours that stand for a role until the drawing is written.
STAND_INS: Palette = {role: f"#fa{number:02x}ce" for number, role in enumerate(ROLES)}


def css(selector: str) -> str:
    """Sets the variables of both readings.

    Args:
        selector: What to set them on, such as `:root`.
    """
    light, dark = (
        ";".join(f"--{role}:{colour}" for role, colour in palette.items())
        for palette in (LIGHT, DARK)
    )
    return (
        f"{selector}{{color-scheme:light dark;{light}}}"
        f"@media (prefers-color-scheme:dark){{{selector}{{{dark}}}}}"
    )
