"""Headless Chromium, where it is installed."""

import shutil

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SCHEMES = {"light": 1, "dark": 0}
"""Blink's numbers of the preferred colour scheme."""


def arguments(profile, scheme):
    """Chromium with a profile of its own, nobody's screen, and console messages on stderr."""
    return [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
        *("--enable-logging=stderr", f"--user-data-dir={profile}"),
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
    ]
