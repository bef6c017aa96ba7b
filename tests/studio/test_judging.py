"""Does the browser tests' judge of contrast, which looks at a few texts of each look, miss one that is pale?"""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Browser, Page

PALE = """<!doctype html><html lang="en"><title>Pale</title><style>
    body { color: #111; background: #fff } .dark { background: #222 } .faded { opacity: 0.3 }
    #under { position: relative; height: 3em } #ink { color: #ccc } #over { position: absolute; background: #333 }
</style><main><h1>Cells</h1><table>CELLS
<tr><td id="ink">ink</td></tr><tr class="dark"><td id="ground">ground</td></tr>
<tr><td><b class="faded"><i id="shade">shade</i></b></td></tr></table>
<div id="under"><span id="over">over</span></div><details><summary>More</summary><p id="hidden">hidden</p></details>
<p id="shown">shown</p></main>"""


def test_whatever_is_pale_is_seen(browser: Browser, serious: Callable[[Page], list[str]]) -> None:
    page = browser.new_page()
    page.set_content(PALE.replace("CELLS", "<tr><td>cell</td></tr>" * 300))
    pale = {"ink", "ground", "shade", "over"}
    assert {name for name in (*pale, "hidden", "shown") if any(f"'#{name}'" in each for each in serious(page))} == pale
    # A text that is hidden does not stand for one of its look that is shown.
    page.add_style_tag(content="#hidden, #shown { color: #ddd }")
    assert any("'#shown'" in each for each in serious(page))
    assert not any("'#hidden'" in each for each in serious(page))
    page.close()
